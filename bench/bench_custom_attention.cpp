// SPDX-License-Identifier: Apache-2.0
// bench_custom_attention: ALiBi written outside of the library beside the built-in one, causal, T 2048.
#include <benchmark/benchmark.h>

#include "ashlar/kernels/custom_attention-inl.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace attention;

struct Alibi {
  View<const float, 1> slopes;
  FloatVec operator()(FloatTag d, const AttentionRow& row, IntVec keys, Index, FloatVec x) const {
    const IntTag di;
    const auto distance = hn::Abs(hn::Sub(keys, hn::Set(di, static_cast<std::int32_t>(row.position))));
    return hn::NegMulAdd(hn::Set(d, slopes(row.head)), hn::ConvertTo(d, distance), x);
  }
};
constexpr Index kEarlier = Index{1} << 29;

void alibi(benchmark::State& state, bool custom, Index dim) {
  constexpr Index kTokens = 2048, kHeads = 8;
  const auto q = bench::random<3>({kTokens, kHeads, dim}, 2),
             k = bench::random<3>({kTokens, kHeads, dim}, 1, 2),
             v = bench::random<3>({kTokens, kHeads, dim}, 1, 3);
  Tensor<float, 3> out({kTokens, kHeads, dim});
  const Tensor<float, 1> slopes = alibi_slopes(kHeads);
  const KeyValue kv{k.view(), v.view()};
  SoftmaxAttention args{q.view(), {}, {&kv, 1}, out.view()};
  args.pattern.causal = true;
  CpuExec exec;
  if (custom) {
    for (auto _ : state) softmax_attention(args, BandPattern{kEarlier, 0}, Alibi{slopes.view()}, exec);
  } else {
    args.score.alibi = slopes.view();
    for (auto _ : state) softmax_attention(args, exec);
  }
  const double pairs = 0.5 * static_cast<double>(kTokens * (kTokens + 1) * kHeads);
  bench::report(state, 4 * pairs * static_cast<double>(dim), 0, exec);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  for (const Index dim : {64, 128})
    for (const bool custom : {false, true}) {
      const std::string name = concat("alibi/", custom ? "custom" : "builtin", "/T:2048/H:8/D:", dim);
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { alibi(s, custom, dim); })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
