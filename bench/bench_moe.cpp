// SPDX-License-Identifier: Apache-2.0
// A layer of a mixture of experts with bf16 weights: 8 of 64 experts, 2048 channels, experts of 512.
#include <benchmark/benchmark.h>

#include <vector>

#include "ashlar/nn/moe.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

constexpr MoeConfig kConfig{.hidden = 2048, .width = 512, .experts = 64, .chosen = 8};
constexpr double kExpert = 3.0 * kConfig.width * kConfig.hidden;  // weights

const MixtureOfExperts<CpuExec>& layer() {
  static const auto made = [] {
    CpuExec exec;
    const RandomParameters weights(DType::bf16, 1, [](std::string_view name) {
      return !name.ends_with(".bias") && name != "experts.gate_up_proj";
    });
    return MixtureOfExperts<CpuExec>(ParameterReader<CpuExec>(weights, exec), kConfig);
  }();
  return made;
}

void prefill(benchmark::State& state, Index tokens) {
  CpuExec exec;
  const auto x = bench::random<2>({tokens, kConfig.hidden});
  Tensor<float, 2> out({tokens, kConfig.hidden});
  layer()(x.view(), out.view(), Phase::prefill, exec);
  for (auto _ : state) layer()(x.view(), out.view(), Phase::prefill, exec);
  const double t = static_cast<double>(tokens);
  bench::report(state,
                2 * t * (kExpert * kConfig.chosen + static_cast<double>(kConfig.experts * kConfig.hidden)), 0,
                exec);
}

// Another token each time, so that others of the experts are read.
void decode(benchmark::State& state) {
  constexpr Index kTokens = 64;
  CpuExec exec;
  const auto x = bench::random<2>({kTokens, kConfig.hidden});
  Tensor<float, 2> out({1, kConfig.hidden});
  Index t = 0;
  for (auto _ : state) {
    layer()(x.view().slice(0, t, t + 1), out.view(), Phase::decode, exec);
    t = (t + 1) % kTokens;
  }
  bench::report(state, 0,
                2 * (kExpert * kConfig.chosen + static_cast<double>(kConfig.experts * kConfig.hidden)), exec);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  for (Index tokens : {32, 512, 2048})
    benchmark::RegisterBenchmark(concat("prefill/moe/T:", tokens, "/E:64/k:8").c_str(),
                                 [=](benchmark::State& s) { prefill(s, tokens); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("decode/moe/E:64/k:8", decode)->UseRealTime()->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
