// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <string>

#include "ashlar/ops/length_projection.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

void project_case(benchmark::State& state, Index tokens, Index rank, Index heads, Index dim) {
  CpuExec exec;
  const auto x = bench::random<3>({tokens, heads, dim}), weight = bench::random<3>({1, tokens, rank});
  Tensor<float, 3> out({rank, heads, dim});
  for (auto _ : state) {
    length_projection({x.view(), weight.view(), {}, out.view()}, exec);
    benchmark::ClobberMemory();
  }
  bench::report(state, 2.0 * static_cast<double>(rank) * static_cast<double>(x.size()), 0, exec);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using ashlar::Index;
  for (const Index tokens : {512, 4096})
    for (const Index rank : {32, 256})
      benchmark::RegisterBenchmark(
          ashlar::concat("prefill/length_projection/T:", tokens, "/r:", rank, "/H:8/D:64").c_str(),
          [=](auto& s) { ashlar::project_case(s, tokens, rank, 8, 64); })
          ->UseRealTime();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
