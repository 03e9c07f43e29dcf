// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "ashlar/core/conv2d_weight.hpp"
#include "ashlar/ops/conv2d.hpp"
#include "ashlar/ops/resize.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

struct Case {
  const char* name;
  Index height, width, inputs, outputs, kernel, stride = 1, padding = 0, groups = 1;
  Activation activation = Activation::identity;
};
constexpr Case kCases[] = {
    {"dense3x3/64x64x180", 64, 64, 180, 180, 3, 1, 1},
    {"dense3x3/64x64x180->60/gelu", 64, 64, 180, 60, 3, 1, 1, 1, Activation::gelu},
    {"dense3x3/64x64x60->180", 64, 64, 60, 180, 3, 1, 1},
    {"dense3x3/128x128x64->256", 128, 128, 64, 256, 3, 1, 1},
    {"dense3x3/14x14x256", 14, 14, 256, 256, 3, 1, 1},
    {"dense3x3/56x56x64", 56, 56, 64, 64, 3, 1, 1},
    {"dense1x1/64x64x180", 64, 64, 180, 180, 1},
    {"dense1x1/56x56x96->384", 56, 56, 96, 384, 1},
    {"first3x3/64x64x3->180", 64, 64, 3, 180, 3, 1, 1},
    {"last3x3/256x256x64->3", 256, 256, 64, 3, 3, 1, 1},
    {"last3x3/64x64x60->12", 64, 64, 60, 12, 3, 1, 1},
    {"patch16/224x224x3->768", 224, 224, 3, 768, 16, 16},
    {"patch4/224x224x3->96", 224, 224, 3, 96, 4, 4},
    {"grouped3x3/56x56x96/G:3", 56, 56, 96, 96, 3, 1, 1, 3},
    {"grouped3x3/14x14x384/G:12", 14, 14, 384, 384, 3, 1, 1, 12},
    {"depthwise3x3/64x64x180", 64, 64, 180, 180, 3, 1, 1, 180},
    {"depthwise3x3/56x56x96", 56, 56, 96, 96, 3, 1, 1, 96},
    {"depthwise5x5/56x56x96", 56, 56, 96, 96, 5, 1, 2, 96},
    {"depthwise7x7/56x56x96", 56, 56, 96, 96, 7, 1, 3, 96},
    {"depthwise7x7/14x14x384", 14, 14, 384, 384, 7, 1, 3, 384},
    {"depthwise4x4s4/64x64x180", 64, 64, 180, 180, 4, 4, 0, 180},
};

void conv(benchmark::State& state, const Case& c) {
  CpuExec exec;
  const auto x = bench::random<4>({1, c.height, c.width, c.inputs});
  const auto filters = bench::random<4>({c.outputs, c.inputs / c.groups, c.kernel, c.kernel}, 1, 2);
  const auto bias = bench::random<1>({c.outputs}, 1, 3);
  const Index rows = conv2d_extent(c.height, c.kernel, c.stride, c.padding),
              columns = conv2d_extent(c.width, c.kernel, c.stride, c.padding);
  Tensor<float, 4> out({1, rows, columns, c.outputs});
  const Conv2dWeight weight(filters.view(), c.groups, exec);
  const Conv2dArgs args{
      x.view(),    weight, bias.view(), out.view(), {{c.stride, c.stride}, {c.padding, c.padding}},
      c.activation};
  for (auto _ : state) conv2d(args, exec);
  bench::report(state, 2 * static_cast<double>(out.size()) * static_cast<double>(filters.size() / c.outputs),
                0, exec);
}

void resize_image(benchmark::State& state, ResizeMode mode, bool antialias, Index from, Index to,
                  Index channels) {
  CpuExec exec;
  const auto x = bench::random<4>({1, from, from, channels});
  Tensor<float, 4> out({1, to, to, channels});
  const Resize args{x.view(), out.view(), mode, false, antialias};
  for (auto _ : state) resize(args, exec);
  const double written = 4 * static_cast<double>(out.size());
  bench::report(state, 0, 4 * static_cast<double>(x.size()) + written, exec, written);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  const auto add = [](const std::string& title, auto run) {
    benchmark::RegisterBenchmark(title.c_str(), run)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (const Case& c : kCases) add(concat("prefill/", c.name), [&c](benchmark::State& s) { conv(s, c); });
  const auto resized = [&](const char* name, ResizeMode mode, bool antialias, Index from, Index to,
                           Index channels) {
    add(concat("resize/", name, "/", from, "->", to, "/C:", channels),
        [=](benchmark::State& s) { resize_image(s, mode, antialias, from, to, channels); });
  };
  resized("nearest", ResizeMode::nearest, false, 128, 256, 64);
  resized("bilinear", ResizeMode::bilinear, false, 256, 1024, 3);
  resized("bicubic", ResizeMode::bicubic, false, 256, 1024, 3);
  resized("bicubic_antialias", ResizeMode::bicubic, true, 1024, 256, 3);
  resized("bicubic", ResizeMode::bicubic, false, 14, 37, 768);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
