// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <string>

#include "ashlar/core/tensor.hpp"
#include "ashlar/ops/norm.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

using bench::random;

// Each element is read once and written once; 2 flops for the sum, 2 for the scaling.
void rms_norm_case(benchmark::State& state, Index tokens, Index heads, Index dim, bool gated) {
  CpuExec exec;
  const auto x = random<3>({tokens, heads, dim}), gate = random<3>({tokens, heads, dim});
  const auto weight = random<1>({dim});
  Tensor<float, 3> out({tokens, heads, dim});
  RmsNorm args;
  args.x = x.view(), args.weight = weight.view(), args.out = out.view();
  if (gated) args.gate = gate.view();
  for (auto _ : state) {
    rms_norm(args, exec);
    benchmark::ClobberMemory();
  }
  const double n = static_cast<double>(x.size());
  bench::report(state, 4 * n, (gated ? 3 : 2) * 4 * n, exec, 4 * n);
}

void l2_norm_case(benchmark::State& state, Index tokens, Index heads, Index dim) {
  CpuExec exec;
  const auto x = random<3>({tokens, heads, dim});
  Tensor<float, 3> out({tokens, heads, dim});
  for (auto _ : state) {
    l2_norm({x.view(), out.view()}, exec);
    benchmark::ClobberMemory();
  }
  const double n = static_cast<double>(x.size());
  bench::report(state, 3 * n, 2 * 4 * n, exec, 4 * n);
}

void add(Index tokens, const char* phase) {
  const std::string t = concat("/T:", tokens);
  benchmark::RegisterBenchmark(concat(phase, "/rms_norm", t, "/D:2048").c_str(), [=](auto& s) {
    rms_norm_case(s, tokens, 1, 2048, false);
  })->UseRealTime();
  benchmark::RegisterBenchmark(concat(phase, "/gated_rms_norm", t, "/H:32/D:128").c_str(), [=](auto& s) {
    rms_norm_case(s, tokens, 32, 128, true);
  })->UseRealTime();
  benchmark::RegisterBenchmark(concat(phase, "/l2_norm", t, "/H:32/D:128").c_str(), [=](auto& s) {
    l2_norm_case(s, tokens, 32, 128);
  })->UseRealTime();
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  ashlar::add(512, "prefill");
  ashlar::add(8192, "prefill");
  ashlar::add(1, "decode");
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
