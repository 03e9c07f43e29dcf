// SPDX-License-Identifier: Apache-2.0
// The two mechanisms of DLGSANet (Tiny and Light 48 channels, Large 90) and of Restormer (48 and 96).
#include <string>

#include "ashlar/ops/channel_attention.hpp"
#include "ashlar/ops/dynamic_local_conv.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

using bench::random;

// Rows of kernels, of which a network makes no more at a time than a cache holds.
void local(benchmark::State& state, Index width, Index channels, Index kernel, Index groups) {
  CpuExec exec;
  const Index taps = kernel * kernel, rows = 2;
  const Tensor<float, 4> x = random<4>({1, kernel + rows, width, channels});
  const Tensor<float, 5> kernels = random<5>({1, rows, width, taps, groups});
  Tensor<float, 4> out({1, rows, width, channels});
  for (auto _ : state) {
    dynamic_local_conv({x.view(), kernels.view(), out.view(), {kernel, kernel}, kernel / 2}, exec);
    benchmark::ClobberMemory();
  }
  bench::report(state, 2.0 * static_cast<double>(rows * width * channels * taps), 0, exec);
}

void channels(benchmark::State& state, Index side, Index channels, Index heads, Index tile) {
  CpuExec exec;
  const Tensor<float, 4> qkv = random<4>({1, side, side, 3 * channels});
  Tensor<float, 4> out({1, side, side, channels});
  const View<const float, 4> all = qkv.view();
  ChannelAttention a{all.slice(3, 0, channels), all.slice(3, channels, 2 * channels),
                     all.slice(3, 2 * channels, 3 * channels), out.view()};
  a.heads = heads, a.weights = ChannelWeights::relu, a.tile = {tile, tile};
  for (auto _ : state) {
    channel_attention(a, exec);
    benchmark::ClobberMemory();
  }
  const double pixels = static_cast<double>(side * side);
  bench::report(state, 4.0 * pixels * static_cast<double>(channels * channels / heads),
                4.0 * static_cast<double>(qkv.size() + out.size()), exec,
                4.0 * static_cast<double>(out.size()));
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using ashlar::Index;
  const auto add = [](const std::string& name, auto&& f) {
    benchmark::RegisterBenchmark(name.c_str(), f)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (const auto& [c, k, groups] : {std::array<Index, 3>{48, 7, 8}, {90, 7, 15}, {64, 3, 4}})
    add(ashlar::concat("dynamic_local_conv/width:320/C:", c, "/kernel:", k, "/groups:", groups),
        [c = c, k = k, g = groups](auto& s) { ashlar::local(s, 320, c, k, g); });
  for (const auto& [c, heads, tile] :
       {std::array<Index, 3>{48, 6, 0}, {48, 6, 96}, {90, 6, 0}, {48, 1, 0}, {96, 2, 0}})
    add(ashlar::concat("channel_attention/image:256/C:", c, "/heads:", heads, "/tile:", tile),
        [c = c, h = heads, t = tile](auto& s) { ashlar::channels(s, 256, c, h, t); });
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
