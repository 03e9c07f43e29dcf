// SPDX-License-Identifier: Apache-2.0
// Linear recurrences on the device, timed by its events.
#include <cmath>
#include <vector>

#include "ashlar/cuda/graph.hpp"
#include "ashlar/cuda/ops.hpp"
#include "bench/cuda_events.hpp"
#include "bench/cuda_peak.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

struct Mixer {
  const char* name;
  Index key_heads, heads, key_dim, value_dim;
  bool delta;
};
constexpr Mixer kMixers[] = {{"gated_delta_rule/olmo_hybrid", 30, 30, 96, 192, true},
                             {"gated_delta_rule/qwen3_next", 16, 32, 128, 128, true},
                             {"simple_gla/H:32/D:128", 32, 32, 128, 128, false}};

template <int Rank>
DeviceTensor<float, Rank> random(std::array<Index, Rank> shape, float scale, unsigned seed) {
  return DeviceTensor<float, Rank>(bench::random<Rank>(shape, scale, seed).view());
}

// Inputs of `tokens` tokens: keys and queries of length 1, log decays about -0.1, strengths in (0, 1).
struct Inputs {
  DeviceTensor<float, 3> q, k, v, out;
  DeviceTensor<float, 2> g, beta;

  Inputs(const Mixer& m, Index tokens, CudaExec& exec)
      : q(random<3>({tokens, m.key_heads, m.key_dim}, 1, 1)),
        k(random<3>({tokens, m.key_heads, m.key_dim}, 1, 2)),
        v(random<3>({tokens, m.heads, m.value_dim}, 1, 3)),
        out({tokens, m.heads, m.value_dim}),
        g(random<2>({tokens, m.heads}, 1, 4)),
        beta(random<2>({tokens, m.heads}, 1, 5)) {
    l2_norm(L2Norm{q.view(), q.view()}, exec);
    l2_norm(L2Norm{k.view(), k.view()}, exec);
    DeviceTensor<float, 1> shift({m.heads}), rate({m.heads});
    Tensor<float, 1> host({m.heads});
    for (Index h = 0; h < m.heads; ++h) host.data()[h] = -2;
    shift = DeviceTensor<float, 1>(std::as_const(host).view());
    decay_gate(DecayGate{g.view(), {}, shift.view(), g.view()}, exec);
    activate(Activate{beta.view(), {}, beta.view(), Activation::sigmoid}, exec);
    exec.synchronize();
  }
  DeviceLinearRecurrence args(const Mixer& m, Offsets offsets,
                              std::span<DeviceRecurrentState* const> states) {
    DeviceLinearRecurrence a{q.view(), k.view(), v.view(), g.view(), {}, out.view(), 0, offsets, states};
    if (m.delta) a.beta = beta.view();
    return a;
  }
};

// One token of each sequence, through as many layers' states as leave the cache between their turns.
void decode(benchmark::State& state, const Mixer& m, Index sequences) {
  CudaExec exec;
  const Index bytes = sequences * m.heads * m.key_dim * m.value_dim * 4,
              layers = 1 + (Index{200} << 20) / bytes;
  Inputs in(m, sequences, exec);
  std::vector<Index> offsets;
  for (Index n = 0; n <= sequences; ++n) offsets.push_back(n);
  std::vector<DeviceRecurrentState> states;
  for (Index i = 0; i < layers * sequences; ++i) states.emplace_back(m.heads, m.key_dim, m.value_dim);
  std::vector<DeviceRecurrentState*> pointers;
  for (auto& s : states) pointers.push_back(&s);
  bench::CudaEvents events(exec);
  CudaGraph graph;
  auto pass = [&] {
    graph.run(exec, [&] {
      for (Index i = 0; i < layers; ++i)
        linear_recurrence(in.args(m, offsets,
                                  std::span(pointers).subspan(static_cast<std::size_t>(i * sequences),
                                                              static_cast<std::size_t>(sequences))),
                          exec);
    });
  };
  for (int i = 0; i < 4; ++i) pass();
  for (auto _ : state) state.SetIterationTime(events.seconds(pass) / static_cast<double>(layers));
  bench::report_cuda(state, 0, 2 * static_cast<double>(bytes));
}

void prefill(benchmark::State& state, const Mixer& m, Index sequences, Index tokens, Precision precision) {
  CudaExec exec({.precision = precision});
  const Index all = sequences * tokens;
  Inputs in(m, all, exec);
  std::vector<Index> offsets;
  for (Index n = 0; n <= sequences; ++n) offsets.push_back(n * tokens);
  std::vector<DeviceRecurrentState> states;
  std::vector<DeviceRecurrentState*> pointers;
  for (Index i = 0; i < sequences; ++i) states.emplace_back(m.heads, m.key_dim, m.value_dim);
  for (auto& s : states) pointers.push_back(&s);
  bench::CudaEvents events(exec);
  auto pass = [&] { linear_recurrence(in.args(m, offsets, pointers), exec); };
  pass();
  for (auto _ : state) state.SetIterationTime(events.seconds(pass));
  const double positions = static_cast<double>(all * m.heads);
  bench::report_cuda(state, (m.delta ? 6 : 4) * positions * static_cast<double>(m.key_dim * m.value_dim), 0);
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(all), benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  return bench::run_on_device(argc, argv, benchmark::kMicrosecond, [](auto add) {
    for (const Mixer& m : kMixers) {
      for (Index sequences : {1, 8, 64})
        add(concat("decode/", m.name, "/N:", sequences),
            [=](benchmark::State& s) { decode(s, m, sequences); });
      for (const auto& [sequences, tokens] :
           {std::pair<Index, Index>{1, 512}, {1, 4096}, {8, 2048}, {1, 32768}})
        add(concat("prefill/", m.name, "/N:", sequences, "/T:", tokens),
            [=](benchmark::State& s) { prefill(s, m, sequences, tokens, Precision::fast); });
      add(concat("prefill/full/", m.name, "/N:1/T:4096"),
          [=](benchmark::State& s) { prefill(s, m, 1, 4096, Precision::full); });
    }
  });
}
