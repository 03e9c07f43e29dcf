// SPDX-License-Identifier: Apache-2.0
// bench_linear_recurrence [--threads N] [options of Google Benchmark]
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "ashlar/ops/linear_mixers.hpp"
#include "ashlar/ops/norm.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

int threads = 0;  // 0: the default

struct Member {
  const char* name;
  void (*run)(const LinearRecurrence& args, CpuExec& exec);
  float gate = 0;  // log decays are uniform in (-gate, 0)
  bool vector = false, delta = false, low_rank = false, bonus = false;
  Index substeps = 1;

  // Multiply-adds of a state's element in a token, by the design's count.
  Index multiply_adds() const { return low_rank ? 4 : delta ? 1 + 2 * substeps : 1 + substeps; }
};
constexpr Member kMembers[] = {
    {.name = "retention", .run = retention, .gate = 0.1f},
    {.name = "simple_gla", .run = simple_gla, .gate = 0.1f},
    {.name = "gla", .run = gla, .gate = 0.1f, .vector = true},
    {.name = "rwkv6", .run = rwkv6, .gate = 0.1f, .vector = true, .bonus = true},
    {.name = "rwkv7", .run = rwkv7, .gate = 0.6f, .vector = true, .low_rank = true},
    {.name = "delta_rule", .run = delta_rule, .delta = true},
    {.name = "gated_delta_rule", .run = gated_delta_rule, .gate = 0.1f, .delta = true},
    {.name = "kda", .run = kda, .gate = 1, .vector = true, .delta = true},
    {.name = "gated_delta_product", .run = gated_delta_product, .gate = 0.1f, .delta = true, .substeps = 2},
    {.name = "mamba2_ssd", .run = mamba2_ssd, .gate = 0.1f},
};

const Member& member(std::string_view name) {
  for (const Member& m : kMembers)
    if (m.name == name) return m;
  std::abort();
}

struct Size {
  Index tokens, heads, dk, dv, sequences = 1;
  DType dtype = DType::f32;
};

struct Problem {
  Problem(const Member& m, const Size& s, CpuExec& exec)
      : size(s),
        q(bench::random<3>({s.tokens, s.heads, s.dk})),
        k(bench::random<3>({s.tokens * m.substeps, s.heads, s.dk}, 1, 2)),
        v(bench::random<3>({s.tokens * m.substeps, s.heads, s.dv}, 1, 3)),
        out({s.tokens, s.heads, s.dv}) {
    l2_norm({q.view(), q.view()}, exec), l2_norm({k.view(), k.view()}, exec);
    args = {q.view(), k.view(), v.view(), {}, {}, out.view()};
    args.substeps = m.substeps;
    if (m.gate > 0 && !m.vector) {
      g = bench::random<2>({s.tokens, s.heads}, m.gate / 2, 4);
      for (Index i = 0; i < g.size(); ++i) g.data()[i] -= m.gate / 2;
      args.g = g.view();
      if (m.run == retention) args.g = constant_decay(View<const float, 1>(g.data(), {s.heads}), s.tokens);
    }
    if (m.vector) {
      gk = bench::random<3>({s.tokens, s.heads, s.dk}, m.gate / 2, 4);
      for (Index i = 0; i < gk.size(); ++i) gk.data()[i] -= m.gate / 2;
      args.gk = gk.view();
    }
    if (m.delta) {
      beta = bench::random<2>({s.tokens * m.substeps, s.heads}, 0.5f, 5);
      for (Index i = 0; i < beta.size(); ++i) beta.data()[i] += 0.5f;
      args.beta = beta.view();
    }
    if (m.low_rank) {  // a = -kk, b = kk eta
      a = bench::random<3>({s.tokens, s.heads, s.dk}, 1, 6), b = a;
      l2_norm({a.view(), b.view()}, exec);
      for (Index i = 0; i < a.size(); ++i) a.data()[i] = -b.data()[i], b.data()[i] *= 0.5f;
      args.a = a.view(), args.b = b.view();
    }
    if (m.bonus) {
      bonus = bench::random<2>({s.heads, s.dk}, 0.5f, 7);
      args.bonus = bonus.view();
    }
    for (Index n = 0; n < s.sequences; ++n) {
      auto& state = states.emplace_back(s.heads, s.dk, s.dv, s.dtype);
      state.import_from(bench::random<3>({s.heads, s.dk, s.dv}, 0.1f, static_cast<unsigned>(n)).view());
      offsets.push_back(s.tokens / s.sequences * n);
    }
    offsets.push_back(s.tokens);
    for (RecurrentState& state : states) pointers.push_back(&state);
    args.offsets = offsets, args.states = pointers;
  }
  Problem(const Problem&) = delete;

  Size size;
  Tensor<float, 3> q, k, v, out, gk, a, b;
  Tensor<float, 2> g, beta, bonus;
  std::vector<RecurrentState> states;
  std::vector<RecurrentState*> pointers;
  std::vector<Index> offsets;
  LinearRecurrence args;
};

// Decode is bound by the states' bytes, which are read and written; prefill by arithmetic.
void add(const std::string& name, const Member& m, const Size& size,
         RecurrenceForm form = RecurrenceForm::automatic, Index chunk = 0) {
  const bool decode = size.tokens == size.sequences;
  auto* const registered = benchmark::RegisterBenchmark(name.c_str(), [=, &m](benchmark::State& state) {
    CpuExec exec({threads});
    Problem p(m, size, exec);
    p.args.form = form, p.args.chunk = chunk;
    const double elements = static_cast<double>(size.heads * size.dk * size.dv);
    if (decode) {
      const double written =
          elements * static_cast<double>(size.sequences) * static_cast<double>(bits(size.dtype) / 8);
      return bench::run_beside_memory(state, 2 * written, written, exec, [&] { m.run(p.args, exec); });
    }
    for (auto _ : state) m.run(p.args, exec);
    const double flops = 2.0 * static_cast<double>(m.multiply_adds()) * elements;
    bench::report(state, flops * static_cast<double>(size.tokens), 0, exec);
  });
  registered->Unit(benchmark::kMillisecond);
  decode ? registered->UseManualTime() : registered->UseRealTime();
}

void add_all() {
  for (const Member& m : kMembers) {
    const bool ssd = m.run == mamba2_ssd;  // Dk is the state, Dv the head: 128 and 64 in Mamba-2's own
    add(concat("prefill/", m.name, ssd ? "/T:1024/H:32/Dk:128/Dv:64" : "/T:1024/H:32/D:128"), m,
        {1024, 32, 128, ssd ? 64 : 128});
  }
  for (const char* name : {"gated_delta_rule", "simple_gla", "gla", "kda", "rwkv7"}) {
    const Member& m = member(name);
    add(concat("prefill/", name, "/recurrent/T:1024/H:32/D:128"), m, {1024, 32, 128, 128},
        RecurrenceForm::recurrent);
    for (const Index chunk : {16, 32, 64, 128})
      add(concat("prefill/", name, "/chunk:", chunk, "/T:1024/H:32/D:128"), m, {1024, 32, 128, 128},
          RecurrenceForm::chunk, chunk);
    for (const Size& s : {Size{1024, 32, 64, 64},
                          {1024, 30, 96, 192},
                          {1024, 4, 128, 128},
                          {1024, 8, 256, 256},
                          {1024, 4, 128, 256}})
      add(concat("prefill/", name, "/T:1024/H:", s.heads, "/Dk:", s.dk, "/Dv:", s.dv), m, s);
    for (const Index sequences : {1, 64})
      for (const DType dtype : {DType::f32, DType::bf16})
        add(concat("decode/", name, dtype == DType::f32 ? "" : "/bf16", "/N:", sequences, "/H:32/D:128"), m,
            {sequences, 32, 128, 128, sequences, dtype});
  }
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  int kept = 1;
  for (int i = 1; i < argc; ++i)
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
      ashlar::threads = std::atoi(argv[++i]);
    else
      argv[kept++] = argv[i];
  argc = kept;
  ashlar::add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
