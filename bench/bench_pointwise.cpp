// SPDX-License-Identifier: Apache-2.0
// Ops that read and write each element once: activation, rotary embedding, short convolution. Their flops are
// multiply-adds of the op itself, without those that an exponential is made of.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "ashlar/core/tensor.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/rope.hpp"
#include "ashlar/ops/short_conv.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

using bench::random;

void activate_case(benchmark::State& state, Activation f, bool gated, Index tokens, Index dim) {
  CpuExec exec;
  const auto x = random<2>({tokens, dim}), up = random<2>({tokens, dim});
  Tensor<float, 2> out({tokens, dim});
  Activate args{x.view(), {}, out.view(), f};
  if (gated) args.up = up.view();
  for (auto _ : state) {
    activate(args, exec);
    benchmark::ClobberMemory();
  }
  const double n = static_cast<double>(x.size());
  bench::report(state, (gated ? 2 : 1) * n, (gated ? 3 : 2) * 4 * n, exec, 4 * n);
}

void rope_case(benchmark::State& state, RopeLayout layout, Index tokens, Index heads, Index dim) {
  CpuExec exec;
  const auto x = random<3>({tokens, heads, dim});
  Tensor<float, 3> out({tokens, heads, dim});
  const RopeFrequencies frequencies = rope_frequencies(dim, 500000);
  Tensor<Index, 1> positions({tokens});
  for (Index t = 0; t < tokens; ++t) positions.data()[t] = 1000 + t;
  const Rope args{x.view(), positions.view(), frequencies.inverse.view(), out.view(), 1, layout};
  for (auto _ : state) {
    rope(args, exec);
    benchmark::ClobberMemory();
  }
  const double n = static_cast<double>(x.size());
  bench::report(state, 3 * n, 2 * 4 * n, exec, 4 * n);
}

// `tokens` are one sequence in prefill, and one token of each of as many sequences in decode.
void short_conv_case(benchmark::State& state, bool decode, Index tokens, Index channels, Index width) {
  CpuExec exec;
  const auto x = random<2>({tokens, channels}), weight = random<2>({channels, width});
  Tensor<float, 2> out({tokens, channels});
  auto memory = random<3>({tokens, width - 1, channels});
  std::vector<float*> states{memory.data()};
  std::vector<Index> offsets{0, tokens};
  if (decode)
    for (Index t = 1; t < tokens; ++t) {
      states.push_back(memory.view()[t].data);
      offsets.insert(offsets.end() - 1, t);
    }
  ShortConv args{x.view(), weight.view(), {}, out.view(), Activation::silu, offsets, states};
  for (auto _ : state) {
    short_conv(args, exec);
    benchmark::ClobberMemory();
  }
  const double n = static_cast<double>(x.size()), w = static_cast<double>(width);
  const double state_bytes =
      2 * 4 * static_cast<double>(states.size()) * (w - 1) * static_cast<double>(channels);
  bench::report(state, 2 * w * n, 2 * 4 * n + state_bytes + 4 * static_cast<double>(weight.size()), exec,
                4 * n);
}

template <class F>
void add(const std::string& name, F&& f) {
  benchmark::RegisterBenchmark(name.c_str(), f)->UseRealTime();
}

void add_all() {
  using S = benchmark::State;
  for (Index t : {1, 512}) {
    const std::string phase = t == 1 ? "decode/" : "prefill/", tokens = concat("/T:", t);
    add(concat(phase, "swiglu", tokens, "/D:8192"),
        [=](S& s) { activate_case(s, Activation::silu, true, t, 8192); });
    add(concat(phase, "gelu", tokens, "/D:8192"),
        [=](S& s) { activate_case(s, Activation::gelu, false, t, 8192); });
    add(concat(phase, "gelu_tanh", tokens, "/D:8192"),
        [=](S& s) { activate_case(s, Activation::gelu_tanh, false, t, 8192); });
    add(concat(phase, "rope", tokens, "/H:32/D:128"),
        [=](S& s) { rope_case(s, RopeLayout::half_split, t, 32, 128); });
    add(concat(phase, "rope_interleaved", tokens, "/H:32/D:128"),
        [=](S& s) { rope_case(s, RopeLayout::interleaved, t, 32, 128); });
    add(concat(phase, "short_conv", tokens, "/C:8192/W:4"),
        [=](S& s) { short_conv_case(s, t == 1, t, 8192, 4); });
  }
  add("decode/short_conv/N:32/C:8192/W:4", [](S& s) { short_conv_case(s, true, 32, 8192, 4); });
  add("prefill/short_conv/T:512/C:8192/W:3", [](S& s) { short_conv_case(s, false, 512, 8192, 3); });
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  ashlar::add_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
