// SPDX-License-Identifier: Apache-2.0
// Whole restoration networks with random weights, on one tile.
#include <benchmark/benchmark.h>

#include <memory>

#include "ashlar/models/restoration_model.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

struct Case {
  const char *name, *upsampler, *connection;
  Index embed, groups, depth, heads, window, scale, side;
};
constexpr Case kCases[] = {
    {"swinir_classical_x4", "pixelshuffle", "1conv", 180, 6, 6, 6, 8, 4, 64},
    {"swinir_light_x2", "pixelshuffledirect", "1conv", 60, 4, 6, 6, 8, 2, 64},
    {"swinir_real_l_x4", "nearest+conv", "3conv", 240, 9, 6, 8, 8, 4, 64},
    {"swinir_jpeg", "", "1conv", 180, 6, 6, 6, 7, 1, 63},
};
constexpr Index kInner = 64, kMlp = 2;

Value config(const Case& c) {
  const auto n = [](Index x) { return Value(static_cast<std::int64_t>(x)); };
  const auto each = [&](Index x) { return Value(Value::Array(static_cast<std::size_t>(c.groups), n(x))); };
  return Value::Object{{"embed_dim", n(c.embed)},
                       {"depths", each(c.depth)},
                       {"num_heads", each(c.heads)},
                       {"window_size", n(c.window)},
                       {"mlp_ratio", n(kMlp)},
                       {"upscale", n(c.scale)},
                       {"upsampler", Value(std::string(c.upsampler))},
                       {"resi_connection", Value(std::string(c.connection))}};
}

// Of one pixel: dense layers and attention of each layer, the convolutions, the head.
double flops_of(const Case& c) {
  const double embed = static_cast<double>(c.embed), groups = static_cast<double>(c.groups), inner = kInner;
  const double s2 = static_cast<double>(c.scale * c.scale);
  const auto conv = [](double in, double out, double area = 9) { return 2 * area * in * out; };
  const double layer =
      2 * embed * embed * (4 + 2 * kMlp) + 4 * embed * static_cast<double>(c.window * c.window);
  const bool three = std::string_view(c.connection) == "3conv";
  const double body = three ? 2 * conv(embed, embed / 4) + conv(embed / 4, embed / 4, 1) : conv(embed, embed);
  const std::string_view head = c.upsampler;
  double last = conv(embed, 3);
  if (head == "pixelshuffledirect") last = conv(embed, 3 * s2);
  if (head == "pixelshuffle")
    last = conv(embed, inner) + (1 + 4) * conv(inner, 4 * inner) + s2 * conv(inner, 3);
  if (head == "nearest+conv")
    last = conv(embed, inner) + (4 + 2 * s2) * conv(inner, inner) + s2 * conv(inner, 3);
  return conv(3, embed) + groups * (static_cast<double>(c.depth) * layer + body) + body + last;
}

void network(benchmark::State& state, const Case& c) {
  CpuExec exec;
  const RandomParameters weights(DType::f32, 1,
                                 [](std::string_view name) { return !name.ends_with("q_bias"); });
  const auto model = load_restoration_model(config(c), weights, exec, {.architecture = "SwinIR"});
  const auto image = bench::random<4>({1, c.side, c.side, 3});
  Tensor<float, 4> out({1, c.scale * c.side, c.scale * c.side, 3});
  for (auto _ : state) model->run(image.view(), out.view(), exec);
  bench::report(state, flops_of(c) * static_cast<double>(c.side * c.side), 0, exec);
  state.counters["input_pixels"] =
      benchmark::Counter(static_cast<double>(c.side * c.side), benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  for (const Case& c : kCases)
    benchmark::RegisterBenchmark(concat("prefill/", c.name, "/", c.side, "x", c.side).c_str(),
                                 [&c](benchmark::State& s) { network(s, c); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
