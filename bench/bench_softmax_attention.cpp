// SPDX-License-Identifier: Apache-2.0
// bench_softmax_attention [--threads N] [options of Google Benchmark]
//
// Flops are of visible pairs alone: the peak_fraction of a sparse pattern divided by that of prefill/causal
// of the same size is its time in proportion to its pairs. Decode reads other caches in each step, of 192 MiB
// in all or more: bytes are of memory.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "ashlar/ops/softmax_attention.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

int threads = 0;  // 0: the default

struct Case {
  std::string name;
  Index queries, keys, heads, kv_heads, dim;
  Index sequences = 1;
  AttentionPattern pattern{.causal = true};
  Index block = 0;  // of random lists of a tenth of the key blocks, of each head its own
  AttentionNormalizer normalizer = AttentionNormalizer::softmax;
  float soft_cap = 0;
  bool alibi = false;
  Index top_k = 0, page = 0;
  bool bf16_cache = false;

  bool decode() const { return queries < 16; }
  Index list_blocks() const { return keys / block; }
  Index listed() const { return (list_blocks() + 5) / 10; }
  // Of one head and sequence.
  double visible_pairs() const {
    if (block > 0) return static_cast<double>(listed() * list_blocks() * block * block);
    double pairs = 0;
    for (Index i = keys - queries; i < keys; ++i) {
      const Index first = pattern.left >= 0 ? std::max<Index>(0, i - pattern.left) : 0;
      pairs += static_cast<double>((pattern.causal ? i + 1 : keys) - first);
    }
    return pairs;
  }
};

// Keys and values [Hkv, S, D] of one sequence, as a decoder keeps them; pages in a random order.
template <class Kv>
struct Cache {
  Cache(const Case& c, unsigned seed) : k({c.kv_heads, c.keys, c.dim}), v(k.shape()) {
    for (Tensor<Kv, 3>* x : {&k, &v}) {
      const auto values = bench::random<3>({c.kv_heads, c.keys, c.dim}, 1, seed++);
      for (Index i = 0; i < x->size(); ++i) x->data()[i] = static_cast<Kv>(values.data()[i]);
    }
    auto view = [&](const Tensor<Kv, 3>& x) {
      return View<const Kv, 3>(x.data(), {c.keys, c.kv_heads, c.dim}, {c.dim, c.keys * c.dim, 1});
    };
    kv.k = view(k), kv.v = view(v);
    if (c.page == 0) return;
    pages.resize(static_cast<std::size_t>(c.keys / c.page));
    std::iota(pages.begin(), pages.end(), Index{0});
    std::shuffle(pages.begin(), pages.end(), std::mt19937(seed));
    kv.pages = pages, kv.page = c.page, kv.length = c.keys;
  }
  Cache(Cache&&) = default;

  Tensor<Kv, 3> k, v;
  std::vector<Index> pages;
  KeyValueArgs<Kv> kv;
};

template <class Kv>
void attention(benchmark::State& state, const Case& c) {
  CpuExec exec({threads});
  const auto q = bench::random<3>({c.sequences * c.queries, c.heads, c.dim}, 2);
  Tensor<float, 3> out(q.shape());
  const Tensor<float, 1> slopes = alibi_slopes(c.heads);
  std::vector<Index> offsets, block_offsets{0}, blocks;
  for (Index n = 0; n <= c.sequences; ++n) offsets.push_back(n * c.queries);
  if (c.block > 0) {
    std::mt19937 rng(5);
    std::vector<Index> all(static_cast<std::size_t>(c.list_blocks()));
    std::iota(all.begin(), all.end(), Index{0});
    for (Index row = 0; row < c.heads * c.list_blocks(); ++row) {
      std::sample(all.begin(), all.end(), std::back_inserter(blocks), c.listed(), rng);  // in order
      block_offsets.push_back(static_cast<Index>(blocks.size()));
    }
  }

  const double bytes = 2.0 * sizeof(Kv) * static_cast<double>(c.sequences * c.keys * c.kv_heads * c.dim);
  const auto batches = c.decode() ? static_cast<std::size_t>(192.0 * 1024 * 1024 / bytes) + 1 : 1;
  std::vector<Cache<Kv>> caches;
  std::vector<KeyValueArgs<Kv>> sequences;
  for (std::size_t n = 0; n < batches * static_cast<std::size_t>(c.sequences); ++n)
    caches.emplace_back(c, static_cast<unsigned>(2 * n + 1));
  for (const Cache<Kv>& cache : caches) sequences.push_back(cache.kv);

  SoftmaxAttentionArgs<float, Kv> args{.q = q.view(),
                                       .offsets = offsets,
                                       .sequences = {},
                                       .out = out.view(),
                                       .pattern = c.pattern,
                                       .score = {.soft_cap = c.soft_cap},
                                       .normalizer = c.normalizer,
                                       .top_k = c.top_k};
  if (c.block > 0) args.pattern.blocks = {c.block, block_offsets, blocks, c.heads};
  if (c.alibi) args.score.alibi = slopes.view();
  std::size_t batch = 0;
  auto run = [&] {
    const auto n = static_cast<std::size_t>(c.sequences);
    args.sequences = std::span<const KeyValueArgs<Kv>>(sequences).subspan(batch * n, n);
    softmax_attention(args, exec);
    batch = (batch + 1) % batches;
  };
  if (c.decode()) return bench::run_beside_memory(state, bytes, 0, exec, run);
  for (auto _ : state) run();
  const double pairs = c.visible_pairs() * static_cast<double>(c.sequences * c.heads);
  bench::report(state, 4 * pairs * static_cast<double>(c.dim), 0, exec);
}

std::vector<Case> cases() {
  const AttentionPattern causal{.causal = true}, full{};
  const auto prefill = [](std::string name, Index tokens, Index dim, AttentionPattern pattern) {
    return Case{.name = concat("prefill/", name, "/T:", tokens, "/H:8/D:", dim),
                .queries = tokens,
                .keys = tokens,
                .heads = 8,
                .kv_heads = 8,
                .dim = dim,
                .pattern = pattern};
  };
  std::vector<Case> all;
  for (const Index dim : {64, 128})
    for (const Index tokens : {2048, 8192}) all.push_back(prefill("causal", tokens, dim, causal));
  Case grouped = prefill("causal/Hkv:2", 2048, 128, causal);
  grouped.kv_heads = 2;
  all.push_back(grouped);
  all.push_back(prefill("full", 2048, 128, full));
  for (const Index dim : {64, 128})
    all.push_back(prefill("window:512", 8192, dim, AttentionPattern::causal_window(512)));
  for (const Index block : {64, 128}) {
    all.push_back(prefill(concat("blocks:", block, "/density:0.1"), 8192, 128, full));
    all.back().block = block;
  }
  all.push_back(prefill("causal/soft_cap", 2048, 128, causal)), all.back().soft_cap = 50;
  all.push_back(prefill("causal/alibi", 2048, 128, causal)), all.back().alibi = true;
  all.push_back(prefill("causal/bf16", 2048, 128, causal)), all.back().bf16_cache = true;
  all.push_back(prefill("causal/sigmoid", 2048, 128, causal));
  all.back().normalizer = AttentionNormalizer::sigmoid;
  all.push_back(prefill("causal/top_k:64", 2048, 128, causal)), all.back().top_k = 64;

  struct Decode {
    Index sequences, keys, heads, kv_heads, page;
    bool bf16_cache;
  };
  for (const Decode& d : {Decode{1, 8192, 32, 8, 0, false},
                          {1, 8192, 32, 8, 0, true},
                          {4, 8192, 32, 8, 0, false},
                          {4, 8192, 32, 8, 0, true},
                          {4, 8192, 32, 8, 64, false},
                          {1, 131072, 2, 2, 0, false},
                          {1, 131072, 8, 2, 0, false},
                          {1, 2048, 16, 16, 0, false}})
    all.push_back({.name = concat("decode/", d.page > 0 ? concat("page:", d.page, "/") : "",
                                  d.bf16_cache ? "bf16/" : "", "N:", d.sequences, "/S:", d.keys,
                                  "/H:", d.heads, "/Hkv:", d.kv_heads, "/D:128"),
                   .queries = 1,
                   .keys = d.keys,
                   .heads = d.heads,
                   .kv_heads = d.kv_heads,
                   .dim = 128,
                   .sequences = d.sequences,
                   .page = d.page,
                   .bf16_cache = d.bf16_cache});
  return all;
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  int kept = 1;
  for (int i = 1; i < argc; ++i)
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
      threads = std::atoi(argv[++i]);
    else
      argv[kept++] = argv[i];
  argc = kept;
  for (const Case& c : cases()) {
    auto* const registered = benchmark::RegisterBenchmark(c.name.c_str(), [c](benchmark::State& s) {
      c.bf16_cache ? attention<bf16>(s, c) : attention<float>(s, c);
    });
    registered->Unit(benchmark::kMillisecond);
    c.decode() ? registered->UseManualTime() : registered->UseRealTime();
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
