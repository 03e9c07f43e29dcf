// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <string>

#include "ashlar/ops/window_attention.hpp"
#include "ashlar/ops/window_bias.hpp"
#include "bench/peak.hpp"
#include "bench/window_attention_unfused.hpp"

namespace ashlar {
namespace {

using bench::random;

struct Case {
  const char* variant;
  Index image, window, shift, heads, dim;
  Index overlap = 0;
};

// q, k and v are thirds of a projection [1, H, W, 3 C], as a model has them.
struct Call {
  explicit Call(const Case& c)
      : qkv(random<4>({1, c.image, c.image, 3 * c.heads * c.dim})),
        out({1, c.image, c.image, c.heads * c.dim}) {
    const Index channels = c.heads * c.dim, over = c.overlap != 0 ? c.overlap : c.window;
    const auto index = c.overlap != 0 ? overlapping_position_index(c.window, over)
                                      : window_position_index({c.window, c.window});
    const Index side = c.window + over - 1;
    bias = gather_window_bias(random<2>({side * side, c.heads}, 1, 2).view(), index.view());
    const View<const float, 4> all = qkv.view();
    args.q = all.slice(3, 0, channels), args.k = all.slice(3, channels, 2 * channels);
    args.v = all.slice(3, 2 * channels, 3 * channels), args.out = out.view(), args.heads = c.heads;
    args.map = GroupMap::window({c.image, c.image}, {c.window, c.window}, {c.shift, c.shift});
    if (c.overlap != 0) args.key_map = GroupMap::overlapping({c.image, c.image}, c.window, c.overlap);
    args.bias = queries_first(bias.view());
    const Index keys = over * over;
    flops = 4.0 * static_cast<double>(args.map.groups() * c.heads * args.map.slots() * keys * c.dim);
    bytes = 4.0 * static_cast<double>(qkv.size() + out.size());
  }
  Tensor<float, 4> qkv, out;
  Tensor<float, 3> bias;
  WindowAttention args;
  double flops, bytes;
};

void fused(benchmark::State& state, const Case& c) {
  CpuExec exec;
  Call call(c);
  for (auto _ : state) {
    window_attention(call.args, exec);
    benchmark::ClobberMemory();
  }
  bench::report(state, call.flops, call.bytes, exec, 4.0 * static_cast<double>(call.out.size()));
}

#ifdef BENCH_HAS_ONEDNN
// What a framework does, each step over the whole image; compared with the op first.
void unfused(benchmark::State& state, const Case& c) {
  CpuExec exec;
  Call call(c);
  window_attention(call.args, exec);
  const Tensor<float, 4> want = call.out;
  bench::UnfusedWindowAttention composition(call.args, exec);
  composition.run(exec);
  float worst = 0;
  for (Index i = 0; i < want.size(); ++i)
    worst = std::max(worst, std::abs(want.data()[i] - call.out.data()[i]));
  if (!(worst < 1e-5f)) return state.SkipWithError("the composition differs from the op");
  for (auto _ : state) {
    composition.run(exec);
    benchmark::ClobberMemory();
  }
  bench::report(state, call.flops, call.bytes, exec, 4.0 * static_cast<double>(call.out.size()));
}
#endif

void add(const Case& c) {
  std::string shape =
      concat(c.variant, "/image:", c.image, "/window:", c.window, "/H:", c.heads, "/D:", c.dim);
  if (c.overlap != 0) shape += concat("/keys:", c.overlap);
  benchmark::RegisterBenchmark(concat("fused/", shape).c_str(), [=](auto& s) { fused(s, c); })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
#ifdef BENCH_HAS_ONEDNN
  if (c.overlap == 0)
    benchmark::RegisterBenchmark(concat("unfused/", shape).c_str(), [=](auto& s) { unfused(s, c); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
#endif
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using ashlar::Index;
  for (Index window : {8, 16}) {
    ashlar::add({"window", 256, window, 0, 6, 30});
    ashlar::add({"shifted", 256, window, window / 2, 6, 30});
  }
  ashlar::add({"overlapping", 256, 16, 0, 6, 30, 24});
  ashlar::add({"window", 126, 7, 0, 6, 30});
  for (Index dim : {16, 32, 46, 53, 77, 122}) ashlar::add({"window", 128, 16, 0, 4, dim});
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
