// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <vector>

#include "ashlar/core/dense_weight.hpp"
#include "ashlar/ops/dense.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

void dense_layer(benchmark::State& state, Phase phase, DType type, Index m, Index n, Index k) {
  CpuExec exec;
  const auto x = bench::random<2>({m, k});
  const auto w = bench::random<2>({n, k}, 1, 2);
  Tensor<bf16, 2> narrow({n, k});
  for (Index i = 0; i < n * k; ++i) narrow.data()[i] = bf16(w.data()[i]);
  Tensor<float, 2> out({m, n});
  DenseWeight weight =
      type == DType::bf16 ? DenseWeight(AnyView<2>(narrow.data(), type, {n, k})) : DenseWeight(w.view());
  if (phase == Phase::prefill) weight.pack(exec);
  for (auto _ : state) dense({x.view(), weight, {}, out.view(), phase}, exec);
  const double products = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const double bytes = static_cast<double>(n * k) * static_cast<double>(bits(type) / 8);
  bench::report(state, 2 * products, phase == Phase::decode ? bytes : 0, exec);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  for (const DType type : {DType::f32, DType::bf16}) {
    auto add = [&](Phase phase, Index m, Index n, Index k) {
      const auto title =
          concat(phase == Phase::prefill ? "prefill/" : "decode/", name(type), "/M:", m, "/N:", n, "/K:", k);
      benchmark::RegisterBenchmark(title.c_str(),
                                   [=](benchmark::State& s) { dense_layer(s, phase, type, m, n, k); })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    };
    for (Index m : {5, 64, 512}) add(Phase::prefill, m, 2048, 2048);
    add(Phase::prefill, 512, 8192, 2048), add(Phase::prefill, 512, 2048, 8192),
        add(Phase::prefill, 512, 448, 160);
    for (Index m : {1, 4, 16}) add(Phase::decode, m, 16384, 4096);
    add(Phase::decode, 1, 448, 160);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
