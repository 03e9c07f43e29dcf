// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <vector>

#include "ashlar/ops/softmax_attention.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

// Visible pairs of T queries that end at S keys.
double visible_pairs(Index queries, Index keys, Index window) {
  double pairs = 0;
  for (Index i = 0; i < queries; ++i) {
    const Index seen = keys - queries + i + 1;
    pairs += static_cast<double>(window > 0 ? std::min(seen, window) : seen);
  }
  return pairs;
}

void attention(benchmark::State& state, Index sequences, Index queries, Index keys, Index heads,
               Index kv_heads, Index dim, Index window) {
  CpuExec exec;
  const auto q = bench::random<3>({sequences * queries, heads, dim}, 2);
  Tensor<float, 3> out({sequences * queries, heads, dim});
  std::vector<Tensor<float, 3>> caches;  // [Hkv, S, D], as a decoder keeps them
  std::vector<KeyValue> kv;
  std::vector<Index> offsets;
  for (Index n = 0; n < sequences; ++n) {
    for (unsigned seed : {2u, 3u}) caches.push_back(bench::random<3>({kv_heads, keys, dim}, 1, seed));
    offsets.push_back(n * queries);
  }
  offsets.push_back(sequences * queries);
  for (Index n = 0; n < sequences; ++n) {
    auto view = [&](Tensor<float, 3>& t) {
      return View<const float, 3>(t.data(), {keys, kv_heads, dim}, {dim, keys * dim, 1});
    };
    kv.push_back(
        {view(caches[static_cast<std::size_t>(2 * n)]), view(caches[static_cast<std::size_t>(2 * n + 1)])});
  }
  SoftmaxAttention args{q.view(), offsets, kv, out.view()};
  args.pattern = AttentionPattern::causal_window(window);
  for (auto _ : state) softmax_attention(args, exec);
  const double pairs = visible_pairs(queries, keys, window) * static_cast<double>(sequences * heads);
  const double bytes =
      8.0 * static_cast<double>(sequences * kv_heads * dim * (window > 0 ? std::min(window, keys) : keys));
  bench::report(state, 4 * pairs * static_cast<double>(dim), queries == 1 ? bytes : 0, exec);
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  auto add = [](const std::string& name, auto f) {
    benchmark::RegisterBenchmark(name.c_str(), f)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (Index dim : {64, 128})
    for (Index tokens : {2048, 8192})
      add(concat("prefill/causal/T:", tokens, "/H:8/D:", dim),
          [=](benchmark::State& s) { attention(s, 1, tokens, tokens, 8, 8, dim, 0); });
  add("prefill/causal/T:2048/H:16/Hkv:4/D:128",
      [](benchmark::State& s) { attention(s, 1, 2048, 2048, 16, 4, 128, 0); });
  add("prefill/window:512/T:8192/H:8/D:128",
      [](benchmark::State& s) { attention(s, 1, 8192, 8192, 8, 8, 128, 512); });
  add("decode/causal/N:4/S:8192/H:32/Hkv:8/D:128",
      [](benchmark::State& s) { attention(s, 4, 1, 8192, 32, 8, 128, 0); });
  add("decode/causal/N:1/S:2048/H:16/Hkv:16/D:128",
      [](benchmark::State& s) { attention(s, 1, 1, 2048, 16, 16, 128, 0); });
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
