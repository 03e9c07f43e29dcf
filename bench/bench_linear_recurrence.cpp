// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "ashlar/ops/linear_recurrence.hpp"
#include "ashlar/ops/norm.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

struct Problem {
  Problem(Index tokens, Index heads, Index dk, Index dv, Index sequences)
      : q(bench::random<3>({tokens, heads, dk})),
        k(bench::random<3>({tokens, heads, dk}, 1, 2)),
        v(bench::random<3>({tokens, heads, dv}, 1, 3)),
        out({tokens, heads, dv}),
        g(bench::random<2>({tokens, heads}, 0.1f, 4)),
        beta(bench::random<2>({tokens, heads}, 0.5f, 5)) {
    for (Index i = 0; i < g.size(); ++i) g.data()[i] -= 0.1f, beta.data()[i] += 0.5f;
    CpuExec exec;
    l2_norm({q.view(), q.view()}, exec);
    l2_norm({k.view(), k.view()}, exec);
    for (Index n = 0; n < sequences; ++n) {
      auto& s = states.emplace_back(heads, dk, dv);
      s.import_from(bench::random<3>({heads, dk, dv}, 0.1f, static_cast<unsigned>(n)).view());
      offsets.push_back(tokens / sequences * n);
    }
    offsets.push_back(tokens);
    for (auto& s : states) pointers.push_back(&s);
  }
  LinearRecurrence args(bool decay, bool delta) {
    LinearRecurrence a{q.view(), k.view(), v.view(), {}, {}, out.view()};
    if (decay) a.g = g.view();
    if (delta) a.beta = beta.view();
    a.offsets = offsets;
    a.states = pointers;
    return a;
  }
  Tensor<float, 3> q, k, v, out;
  Tensor<float, 2> g, beta;
  std::vector<RecurrentState> states;
  std::vector<RecurrentState*> pointers;
  std::vector<Index> offsets;
};

struct Variant {
  const char* name;
  bool decay, delta;
};
constexpr Variant kVariants[] = {
    {"gated_delta_rule", true, true}, {"delta_rule", false, true}, {"simple_gla", true, false}};

void prefill(benchmark::State& state, Variant variant, Index tokens, Index heads, Index dk, Index dv) {
  CpuExec exec;
  Problem p(tokens, heads, dk, dv, 1);
  const auto args = p.args(variant.decay, variant.delta);
  for (auto _ : state) linear_recurrence(args, exec);
  const double multiply_adds = (variant.delta ? 3.0 : 2.0) * static_cast<double>(dk * dv * tokens * heads);
  bench::report(state, 2 * multiply_adds, 0, exec);
}

void decode(benchmark::State& state, Variant variant, Index sequences, Index heads, Index dk, Index dv) {
  CpuExec exec;
  Problem p(sequences, heads, dk, dv, sequences);
  const auto args = p.args(variant.decay, variant.delta);
  for (auto _ : state) linear_recurrence(args, exec);
  const double bytes = 2.0 * sizeof(float) * static_cast<double>(sequences * heads * dk * dv);
  bench::report(state, 0, bytes, exec, bytes / 2);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  auto add = [](const std::string& name, auto f) {
    benchmark::RegisterBenchmark(name.c_str(), f)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (const Variant& v : kVariants) {
    for (Index heads : {4, 32})
      add(concat("prefill/", v.name, "/T:1024/H:", heads, "/D:128"),
          [=](benchmark::State& s) { prefill(s, v, 1024, heads, 128, 128); });
    add(concat("prefill/", v.name, "/T:1024/H:30/Dk:96/Dv:192"),
        [=](benchmark::State& s) { prefill(s, v, 1024, 30, 96, 192); });
    for (Index sequences : {1, 64})
      add(concat("decode/", v.name, "/N:", sequences, "/H:32/D:128"),
          [=](benchmark::State& s) { decode(s, v, sequences, 32, 128, 128); });
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
