// SPDX-License-Identifier: Apache-2.0
// Where keys and values are kept: behind a start, in a ring, in pages, in bf16; each is the contiguous one.
#include "tests/ops/softmax_attention_support.hpp"

namespace ashlar {
namespace {

using test::Array;
using test::copy;
using test::Heads;
using test::kHeads;
using test::Lengths;
using test::PatternCase;
using test::Problem;

// Rows of a cache, NaN but for what is kept there.
struct Store {
  Store(const Problem& p, Index rows)
      : problem(p),
        k({rows, p.heads.kv_heads, p.heads.dim}),
        v({rows, p.heads.kv_heads, p.heads.value_dim}) {}

  void keep(std::size_t n, Index j, Index row) {
    for (Index h = 0; h < problem.heads.kv_heads; ++h) {
      std::copy_n(problem_k(n).at(j, h), problem.heads.dim, k.view().at(row, h));
      if (!problem.heads.latent)
        std::copy_n(problem_v(n).at(j, h), problem.heads.value_dim, v.view().at(row, h));
    }
  }
  View<const float, 3> problem_k(std::size_t n) const { return const_cast<Array<3>&>(problem.k[n]).cview(); }
  View<const float, 3> problem_v(std::size_t n) const { return const_cast<Array<3>&>(problem.v[n]).cview(); }
  KeyValue all() { return {k.cview(), problem.heads.latent ? problem.first_columns(k.cview()) : v.cview()}; }

  const Problem& problem;
  Array<3> k, v;
};

// All sequences in one pool, whose pages are given out in a random order; some stay free.
struct Paged {
  Paged(Problem& p, Index page, unsigned seed = 3) : store(p, pages_of(p, page) * page) {
    std::vector<Index> free(static_cast<std::size_t>(pages_of(p, page)));
    for (std::size_t i = 0; i < free.size(); ++i) free[i] = static_cast<Index>(i);
    std::mt19937 rng(seed);
    std::shuffle(free.begin(), free.end(), rng);
    for (std::size_t n = 0; n < p.lengths.size(); ++n) {
      const Index start = p.sequences[n].start, end = p.lengths[n].keys;
      std::vector<Index>& table = tables.emplace_back();
      for (Index j = start; j < end; ++j) {
        if ((j - start) % page == 0) table.push_back(free.back()), free.pop_back();
        store.keep(n, j, table.back() * page + (j - start) % page);
      }
    }
    for (std::size_t n = 0; n < p.lengths.size(); ++n) {
      KeyValue kv = store.all();
      kv.start = p.sequences[n].start, kv.length = p.lengths[n].keys, kv.pages = tables[n], kv.page = page;
      sequences.push_back(kv);
    }
    args = p.args, args.sequences = sequences;
  }
  static Index pages_of(const Problem& p, Index page) {
    Index n = 3;
    for (const Lengths& l : p.lengths) n += (l.keys + page - 1) / page;
    return n;
  }

  Store store;
  std::vector<std::vector<Index>> tables;
  std::vector<KeyValue> sequences;
  SoftmaxAttention args;
};

// The last positions of each sequence, in a ring of so many rows.
struct Rings {
  Rings(Problem& p, const std::vector<Index>& rows) {
    stores.reserve(rows.size());
    for (std::size_t n = 0; n < rows.size(); ++n) {
      Store& store = stores.emplace_back(p, rows[n]);
      const Index end = p.lengths[n].keys, start = std::max<Index>(p.sequences[n].start, end - rows[n]);
      for (Index j = start; j < end; ++j) store.keep(n, j, j % rows[n]);
      KeyValue kv = store.all();
      kv.start = start, kv.length = end, kv.ring = true;
      sequences.push_back(kv);
    }
    args = p.args, args.sequences = sequences;
  }
  std::vector<Store> stores;
  std::vector<KeyValue> sequences;
  SoftmaxAttention args;
};

template <class Layout>
void expect_layout(Problem& p, Layout& layout) {
  p.expect([&](CpuExec& exec) { softmax_attention(layout.args, exec); });
}

const std::vector<Lengths> kPacked = {{20, 75}, {1, 131}, {0, 9}, {66, 66}, {3, 300}, {0, 0}};

const PatternCase kFew[] = {{"full"},
                            {"causal", {.causal = true}},
                            {"window", {.causal = true, .left = 20}},
                            {"blocks", {}, 16, true},
                            {"strided or global", {.causal = true, .left = 9, .strided = 11}, 0, false, {3}}};

TEST(SoftmaxAttentionCache, Pages) {
  unsigned count = 0;
  for (const Index page : {1, 3, 16, 64, 128})
    for (const PatternCase& pattern : kFew)
      for (const Heads& heads : {kHeads[1], kHeads[3], kHeads[5]}) {
        Problem p(kPacked, heads, count);
        p.set(pattern).request(true, true);
        SCOPED_TRACE(testing::Message() << "pages of " << page << ", " << pattern.name << ": " << p);
        Paged paged(p, page, count);
        expect_layout(p, paged);
        if (HasFatalFailure()) return;
        ++count;
      }
}

TEST(SoftmaxAttentionCache, PagesOfManyKeys) {
  for (const Index page : {16, 64, 100})
    for (const Index queries : {1, 4}) {
      Problem p({{queries, 3000}, {queries, 1111}}, {8, 2, 16, 16}, 2);
      p.set(kFew[1]).request(true, false);
      Paged paged(p, page);
      SCOPED_TRACE(testing::Message() << "pages of " << page << ": " << p);
      expect_layout(p, paged);
    }
}

// Blocks of keys are multiples of 64 from the first on: such pages change no bit.
TEST(SoftmaxAttentionCache, PagesOf64ChangeNoBit) {
  for (const Index page : {64, 128})
    for (const PatternCase& pattern : kFew) {
      Problem p({{20, 75}, {1, 131}, {66, 66}, {3, 700}, {2, 2100}}, {4, 2, 24, 24}, 2);
      p.set(pattern).request(true, true);
      p.begin_at(3, 64 * 3);
      Paged paged(p, page);
      CpuExec exec({2});
      p.run(exec);
      const std::vector<float> out = copy(p.out), lse = copy(p.lse), entropy = copy(p.entropy);
      p.run([&](CpuExec& e) { softmax_attention(paged.args, e); }, exec);
      EXPECT_EQ(out, copy(p.out)) << "pages of " << page << ", " << pattern.name;
      EXPECT_EQ(lse, copy(p.lse));
      EXPECT_EQ(entropy, copy(p.entropy));
    }
}

// Keys before the start are outside of all windows: nothing is missed.
TEST(SoftmaxAttentionCache, Start) {
  unsigned count = 0;
  for (const Heads& heads : kHeads)
    for (const Index start : {1, 30, 64, 77}) {
      Problem p({{20, 130}, {1, 131}, {3, 150}}, heads, count++);
      p.set(PatternCase{"window", {.causal = true, .left = 20}}).request(true, true);
      p.set(test::ScoreCase{.name = "distances", .alibi = true, .reach = 5, .bias = "hqk"});
      Problem::Want whole = p.want();
      for (std::size_t n = 0; n < 3; ++n) p.begin_at(n, start);
      SCOPED_TRACE(testing::Message() << "start " << start << ": " << p);
      const Problem::Want want = p.want();
      test::expect_near(want.out.view(), whole.out.view(), [](Index) { return 1e-12; });
      p.expect();
      Paged paged(p, 16);
      expect_layout(p, paged);
      if (HasFatalFailure()) return;
    }
}

// What no window hides is absent all the same.
TEST(SoftmaxAttentionCache, StartHidesWhatIsBefore) {
  for (const PatternCase& pattern : {kFew[0], kFew[1], kFew[3], kFew[4]}) {
    Problem p({{20, 130}, {1, 131}, {3, 150}}, {4, 2, 16, 16}, 3);
    p.set(pattern).request(true, true);
    for (std::size_t n = 0; n < 3; ++n) p.begin_at(n, 50);
    SCOPED_TRACE(testing::Message() << pattern.name << ": " << p);
    p.expect();
    p.begin_at(0, 120).begin_at(1, 131);  // most queries, all of them see nothing
    p.expect();
  }
}

// Rows behind the length are not of the sequence.
TEST(SoftmaxAttentionCache, LengthBelowTheRows) {
  for (const PatternCase& pattern : kFew) {
    Problem p({{20, 75}, {1, 131}, {66, 66}}, {4, 2, 24, 40}, 3);
    p.set(pattern).request(true, true);
    std::vector<Store> stores;
    stores.reserve(3);
    std::vector<KeyValue> sequences;
    for (std::size_t n = 0; n < 3; ++n) {
      Store& store = stores.emplace_back(p, p.lengths[n].keys + 40);
      for (Index j = 0; j < p.lengths[n].keys; ++j) store.keep(n, j, j);
      sequences.push_back(store.all());
      sequences.back().length = p.lengths[n].keys;
    }
    SoftmaxAttention args = p.args;
    args.sequences = sequences;
    SCOPED_TRACE(testing::Message() << pattern.name << ": " << p);
    p.expect([&](CpuExec& exec) { softmax_attention(args, exec); });
  }
}

TEST(SoftmaxAttentionCache, Rings) {
  unsigned count = 0;
  for (const Heads& heads : kHeads)
    for (const Index window : {1, 8, 33, 64}) {
      // As many rows as are seen, one more, and many.
      Problem p({{1, 200}, {5, 131}, {1, 7}, {40, 400}, {3, 64}}, heads, count++);
      p.set(PatternCase{"window", {.causal = true, .left = window - 1}}).request(true, true);
      p.set(test::ScoreCase{.name = "distances", .alibi = true, .reach = 5});
      Rings rings(p, {window, window + 4, 80, 128, 70});
      SCOPED_TRACE(testing::Message() << "window " << window << ": " << p);
      expect_layout(p, rings);
      if (HasFatalFailure()) return;
    }
}

TEST(SoftmaxAttentionCache, RingOfManyKeys) {
  for (const Index queries : {1, 4}) {
    Problem p({{queries, 5000}}, {4, 2, 16, 16}, 2);
    p.set(PatternCase{"window", {.causal = true, .left = 1500}}).request(true, true);
    Rings rings(p, {1600});
    SCOPED_TRACE(testing::Message() << p);
    expect_layout(p, rings);
  }
}

TEST(SoftmaxAttentionCache, RingOf64ChangesNoBit) {
  Problem p({{1, 200}, {5, 320}, {1, 7}, {40, 400}}, {4, 2, 24, 24}, 2);
  p.set(PatternCase{"window", {.causal = true, .left = 60}}).request(true, true);
  const std::vector<Index> starts = {64, 192, 0, 256}, rows = {192, 128, 64, 192};
  for (std::size_t n = 0; n < starts.size(); ++n) p.begin_at(n, starts[n]);
  Rings rings(p, rows);
  CpuExec exec({2});
  p.run(exec);
  const std::vector<float> out = copy(p.out), lse = copy(p.lse), entropy = copy(p.entropy);
  p.run([&](CpuExec& e) { softmax_attention(rings.args, e); }, exec);
  EXPECT_EQ(out, copy(p.out));
  EXPECT_EQ(lse, copy(p.lse));
  EXPECT_EQ(entropy, copy(p.entropy));
}

// The rows of a float array as bf16, of the same strides.
struct Half {
  explicit Half(Array<3>& x) : shape(x.view().shape), strides(x.view().strides) {
    data.assign(static_cast<std::size_t>(shape[0] * strides[0] + strides[1]),
                bf16(std::numeric_limits<float>::quiet_NaN()));
    for (Index i = 0; i < x.count(); ++i)
      data[static_cast<std::size_t>(x.place(i))] = bf16(x.view().data[x.place(i)]);
  }
  View<const bf16, 3> view() const { return {data.data(), shape, strides}; }
  std::array<Index, 3> shape, strides;
  std::vector<bf16> data;
};

void round(Array<3>& x) {
  x.each([](float& e) { e = static_cast<float>(bf16(e)); });
}

template <class Q>
void expect_bf16(Problem& p, const SoftmaxAttention& a, View<const Q, 3> q, View<const bf16, 3> k,
                 View<const bf16, 3> v) {
  std::vector<KeyValueArgs<bf16>> sequences;
  for (const KeyValue& kv : a.sequences)
    sequences.push_back({k, v, kv.start, kv.length, kv.ring, kv.pages, kv.page});
  const SoftmaxAttentionArgs<float, bf16, Q> args{q,       a.offsets,    sequences, a.out, a.pattern,
                                                  a.score, a.normalizer, a.top_k,   a.lse, a.entropy};
  p.expect([&](CpuExec& exec) { softmax_attention(args, exec); });
}

TEST(SoftmaxAttentionCache, Bf16) {
  unsigned count = 0;
  for (const Lengths& lengths : {Lengths{70, 70}, {33, 150}, {1, 900}, {4, 1100}})
    for (const Heads& heads : kHeads)
      for (const PatternCase& pattern : kFew) {
        Problem p({lengths}, heads, count);
        const AttentionNormalizer normalizer = test::kNormalizers[count++ % 5];
        p.set(pattern).set(normalizer);
        if (count % 3 == 0) p.set(test::ScoreCase{.name = "cap", .soft_cap = 4, .alibi = true});
        for (Array<3>* x : {&p.k[0], &p.v[0]}) round(*x);
        SCOPED_TRACE(testing::Message() << pattern.name << ": " << p);
        const Half k(p.k[0]), v(p.v[0]);
        const View<const bf16, 3> values = heads.latent ? p.first_columns(k.view()) : v.view();
        expect_bf16<float>(p, p.args, p.q.cview(), k.view(), values);
        round(p.q);
        const Half q(p.q);
        expect_bf16<bf16>(p, p.args, q.view(), k.view(), values);
        if (HasFatalFailure()) return;
      }
}

TEST(SoftmaxAttentionCache, Bf16InPagesAndRings) {
  for (const Heads& heads : {kHeads[1], kHeads[5]}) {
    Problem p({{3, 200}, {1, 75}}, heads, 6);
    p.set(PatternCase{"window", {.causal = true, .left = 40}}).request(true, true);
    for (std::size_t n = 0; n < 2; ++n) round(p.k[n]), round(p.v[n]);
    Paged paged(p, 16);
    const Half k(paged.store.k), v(paged.store.v);
    const View<const bf16, 3> values = heads.latent ? p.first_columns(k.view()) : v.view();
    expect_bf16<float>(p, paged.args, p.q.cview(), k.view(), values);
  }
  Problem p({{3, 200}}, kHeads[1], 6);
  p.set(PatternCase{"window", {.causal = true, .left = 40}}).request(true, true);
  round(p.k[0]), round(p.v[0]), round(p.q);
  Rings rings(p, {50});
  const Half q(p.q), k(rings.stores[0].k), v(rings.stores[0].v);
  expect_bf16<bf16>(p, rings.args, q.view(), k.view(), v.view());
}

}  // namespace
}  // namespace ashlar
