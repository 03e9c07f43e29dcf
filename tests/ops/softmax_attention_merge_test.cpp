// SPDX-License-Identifier: Apache-2.0
// Parts of the keys merged are the whole; and what must not change a bit: threads, batch-mates.
#include "tests/ops/softmax_attention_support.hpp"

namespace ashlar {
namespace {

using test::Array;
using test::copy;
using test::Heads;
using test::kEps;
using test::kHeads;
using test::kNormalizers;
using test::Lengths;
using test::PatternCase;
using test::Problem;
using test::ScoreCase;

constexpr float kLowest = -std::numeric_limits<float>::infinity(),
                kNaN = std::numeric_limits<float>::quiet_NaN();

// Two parts, some of whose rows are empty; an empty one's output is never read.
struct Parts {
  Parts(Index tokens, Index heads, Index dim, unsigned seed)
      : a({tokens, heads, dim}),
        b({tokens, heads, dim}),
        out({tokens, heads, dim}),
        lse_a({tokens, heads}),
        lse_b({tokens, heads}),
        lse({tokens, heads}) {
    std::mt19937 rng(seed);
    a.normal(rng), b.normal(rng), lse_a.normal(rng, 5), lse_b.normal(rng, 5);
    for (Index t = 0; t < tokens; ++t)
      for (Index h = 0; h < heads; ++h) {
        const Index kind = (t * heads + h) % 7;
        if (kind == 1 || kind == 3) empty(a, lse_a, t, h);
        if (kind == 2 || kind == 3) empty(b, lse_b, t, h);
        if (kind == 4) lse_a.view()(t, h) = 1e4f, lse_b.view()(t, h) = 1e4f - 1;
        if (kind == 5) lse_a.view()(t, h) = -300;
      }
  }
  static void empty(Array<3>& x, Array<2>& lse, Index t, Index h) {
    lse.view()(t, h) = kLowest;
    for (Index c = 0; c < x.view().shape[2]; ++c) x.view()(t, h, c) = kNaN;
  }
  MergeAttention args() {
    return {a.cview(), lse_a.cview(), b.cview(), lse_b.cview(), out.view(), lse.view()};
  }

  Array<3> a, b, out;
  Array<2> lse_a, lse_b, lse;
};

TEST(MergeAttention, MatchesTheEquation) {
  unsigned count = 0;
  for (const auto& shape : {std::array<Index, 3>{1, 1, 1}, {7, 3, 8}, {40, 2, 33}, {2, 1, 200}, {0, 2, 8}}) {
    Parts p(shape[0], shape[1], shape[2], ++count);
    Tensor<double, 3> out(shape);
    Tensor<double, 2> lse({shape[0], shape[1]});
    ref::merge_attention(MergeAttentionArgs<double>{p.a.exact(), p.lse_a.exact(), p.b.exact(),
                                                    p.lse_b.exact(), out.view(), lse.view()});
    // e^x of a difference of two floats near 1e4 is off by eps of that.
    auto bound = [&](Index i) {
      const double size = std::abs(lse.data()[i / std::max<Index>(1, shape[2])]);
      return kEps * (16 + 4 * (std::isfinite(size) ? size : 0)) * 5;
    };
    for (CpuExec& exec : test::contexts()) {
      p.out.poison(), p.lse.poison();
      merge_attention(p.args(), exec);
      test::expect_near(p.out.view(), out.view(), bound);
      test::expect_near(p.lse.view(), lse.view(), [&](Index i) {
        return kEps * (8 + (std::isfinite(lse.data()[i]) ? 4 * std::abs(lse.data()[i]) : 0));
      });
      p.out.expect_padding_untouched(), p.lse.expect_padding_untouched();
      const std::vector<float> want = copy(p.out), want_lse = copy(p.lse);

      p.out.poison();
      MergeAttention without = p.args();
      without.lse = {};
      merge_attention(without, exec);
      EXPECT_EQ(copy(p.out), want);

      for (const bool into_a : {true, false}) {
        Parts alias(shape[0], shape[1], shape[2], count);
        MergeAttention args = alias.args();
        Array<3>& out_of = into_a ? alias.a : alias.b;
        Array<2>& lse_of = into_a ? alias.lse_a : alias.lse_b;
        args.out = out_of.view(), args.lse = lse_of.view();
        merge_attention(args, exec);
        EXPECT_EQ(copy(out_of), want);
        EXPECT_EQ(copy(lse_of), want_lse);
      }
    }
  }
}

TEST(MergeAttention, AnEmptyPartLeavesTheOther) {
  Parts p(14, 1, 24, 3);
  CpuExec exec;
  merge_attention(p.args(), exec);
  for (Index c = 0; c < 24; ++c) {
    EXPECT_EQ(p.out.view()(1, 0, c), p.b.view()(1, 0, c));
    EXPECT_EQ(p.out.view()(2, 0, c), p.a.view()(2, 0, c));
    EXPECT_EQ(p.out.view()(3, 0, c), 0);
  }
  EXPECT_EQ(p.lse.view()(1, 0), p.lse_b.view()(1, 0));
  EXPECT_EQ(p.lse.view()(2, 0), p.lse_a.view()(2, 0));
  EXPECT_EQ(p.lse.view()(3, 0), kLowest);
}

// Queries behind the cut see all of the first part; of the second what the pattern shows.
TEST(MergeAttention, OfPartsIsTheWhole) {
  unsigned count = 0;
  for (const Heads& heads : kHeads)
    for (const Lengths& lengths : {Lengths{40, 170}, {1, 333}, {5, 1500}})
      for (const bool causal : {false, true})
        for (const bool bias : {false, true}) {
          Problem p({lengths}, heads, count++);
          p.set(PatternCase{"", {.causal = causal}}).request(true, false);
          if (bias) p.set(ScoreCase{.name = "bias", .bias = "hqk", .hiding = true});
          SCOPED_TRACE(testing::Message() << p << (causal ? " causal" : "") << (bias ? " bias" : ""));
          // Three parts of the keys; all queries are behind the first two.
          const Index cut[] = {0, (lengths.keys - lengths.queries) / 3, lengths.keys - lengths.queries,
                               lengths.keys};
          std::vector<KeyValue> parts;
          Array<3> part({lengths.queries, heads.heads, heads.value_dim});
          Array<2> part_lse({lengths.queries, heads.heads});
          p.expect([&](CpuExec& exec) {
            for (int n = 0; n < 3; ++n) {
              SoftmaxAttention args = p.args;
              const KeyValue& all = p.sequences[0];
              KeyValue kv{all.k.slice(0, cut[n], cut[n + 1]), all.v.slice(0, cut[n], cut[n + 1]), cut[n]};
              if (n < 2) args.pattern = {};
              if (bias) args.score.bias = args.score.bias.slice(3, 0, cut[n + 1]);
              args.sequences = {&kv, 1};
              if (n > 0) args.out = part.view(), args.lse = part_lse.view();
              softmax_attention(args, exec);
              if (n > 0)
                merge_attention({p.out.cview(), p.lse.cview(), part.cview(), part_lse.cview(), p.out.view(),
                                 p.lse.view()},
                                exec);
            }
          });
          if (HasFatalFailure()) return;
        }
}

const PatternCase kFew[] = {{"full"},
                            {"causal", {.causal = true}},
                            {"window", {.causal = true, .left = 20}},
                            {"chunk", {.chunk = 48}},
                            {"prefix", {.causal = true, .prefix = 30}},
                            {"blocks", {}, 16, true},
                            {"strided or global", {.causal = true, .left = 9, .strided = 11}, 0, false, {3}}};

const ScoreCase kScores[] = {
    {.name = "scale"},
    {.name = "cap and sinks", .soft_cap = 5, .sinks = true},
    {.name = "distances", .alibi = true, .reach = 9},
    {.name = "bias", .bias = "hqk", .hiding = true},
};

// What a call made: all bits of it.
struct Bits {
  std::vector<float> out, lse, entropy;
  explicit Bits(Problem& p) : out(copy(p.out)), lse(copy(p.lse)), entropy(copy(p.entropy)) {}
};

void expect_same(const std::vector<float>& x, const std::vector<float>& y) {
  ASSERT_EQ(x.size(), y.size());
  EXPECT_TRUE(x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
}

const std::vector<Lengths> kPacked = {{20, 75}, {1, 2100}, {0, 9}, {66, 66}, {130, 200}, {1, 1}, {3, 1300}};

TEST(SoftmaxAttentionBits, ThreadsChangeNone) {
  unsigned count = 0;
  for (const PatternCase& pattern : kFew)
    for (const ScoreCase& score : kScores) {
      Problem p(kPacked, kHeads[count % std::size(kHeads)], count);
      p.set(pattern)
          .set(score.sinks ? AttentionNormalizer::softmax_plus_one : kNormalizers[count % 5])
          .set(score);
      p.args.top_k = count % 4 == 3 ? 10 : 0;
      SCOPED_TRACE(testing::Message() << pattern.name << ", " << score.name << ": " << p);
      CpuExec one({1});
      p.run(one);
      const Bits want(p);
      for (const int threads : {2, 3}) {
        CpuExec exec({threads});
        p.run(exec);
        const Bits got(p);
        expect_same(got.out, want.out), expect_same(got.lse, want.lse);
        expect_same(got.entropy, want.entropy);
      }
      ++count;
    }
}

TEST(SoftmaxAttentionBits, BatchMatesChangeNone) {
  unsigned count = 0;
  for (const PatternCase& pattern : kFew)
    for (const ScoreCase& score : kScores) {
      Problem p(kPacked, kHeads[count % std::size(kHeads)], count);
      p.set(pattern)
          .set(score.sinks ? AttentionNormalizer::softmax_plus_one : kNormalizers[count % 5])
          .set(score);
      p.args.top_k = count % 4 == 3 ? 10 : 0;
      SCOPED_TRACE(testing::Message() << pattern.name << ", " << score.name << ": " << p);
      CpuExec exec({3}), one({1});
      p.run(exec);
      const Bits packed(p);
      p.run(
          [&](CpuExec& e) {
            for (std::size_t n = 0; n < p.lengths.size(); ++n) {
              const Index from = p.offsets[n], to = p.offsets[n + 1];
              SoftmaxAttention alone = p.args;
              alone.offsets = {}, alone.sequences = {&p.sequences[n], 1};
              auto cut = [&](auto& view) {
                if (view) view = view.slice(0, from, to);
              };
              cut(alone.q), cut(alone.out), cut(alone.lse), cut(alone.entropy);
              if (alone.score.bias)
                alone.score.bias = alone.score.bias.slice(2, 0, std::max<Index>(1, to - from))
                                       .slice(3, 0, std::max<Index>(1, p.lengths[n].keys));
              softmax_attention(alone, e);
            }
          },
          one);
      const Bits alone(p);
      expect_same(alone.out, packed.out), expect_same(alone.lse, packed.lse);
      expect_same(alone.entropy, packed.entropy);
      ++count;
    }
}

// What is asked for beside the output does not change it by more than rounding.
TEST(SoftmaxAttentionBits, RequestsChangeNothing) {
  for (const PatternCase& pattern : kFew) {
    Problem p(kPacked, {4, 2, 24, 24}, 3), all(kPacked, {4, 2, 24, 24}, 3);
    p.set(pattern), all.set(pattern).request(true, true);
    CpuExec exec({2});
    all.run(exec);
    for (const bool lse : {false, true}) {
      p.request(lse, !lse).run(exec);
      test::expect_near(p.out.view(), all.out.view(), [](Index) { return 200 * kEps; });
      if (lse) test::expect_near(p.lse.view(), all.lse.view(), [](Index) { return 300 * kEps; });
      if (!lse) test::expect_near(p.entropy.view(), all.entropy.view(), [](Index) { return 600 * kEps; });
    }
  }
}

// Patterns that mean the same.
TEST(SoftmaxAttentionBits, EqualPatternsAreNear) {
  constexpr Index kFar = Index{1} << 32;  // 0 where 32 bits count
  const std::pair<PatternCase, PatternCase> pairs[] = {
      {{"", {.causal = true}}, {"", {.right = 0}}},
      {{"", {.causal = true}}, {"", {.causal = true, .causal_block = 1}}},
      {{"", {.causal = true}}, {"", {.causal = true, .left = 1000}}},
      {{""}, {"", {.causal = true, .prefix = 1000}}},
      {{""}, {"", {.causal = true, .causal_block = 1000}}},
      {{""}, {"", {.chunk = 1000}}},
      {{""}, {"", {.left = 0, .strided = 1}}},
      {{""}, {"", {.left = kFar, .right = kFar}}},
      {{"", {.causal = true}}, {"", {.causal = true, .left = kFar, .chunk = kFar}}},
      {{""}, {"", {.causal = true, .causal_block = kFar}}},
      {{""}, {"", {.causal = true, .prefix = kFar}}},
      {{"", {.left = 0, .right = 0}}, {"", {.dilation = kFar}}},
      {{"", {.left = 0, .right = 0}}, {"", {.left = 0, .right = 0, .strided = kFar}}},
      {{"", {.left = 0, .right = 0}}, {"", {.left = kFar, .dilation = 1 << 30}}},
      {{"", {.dilation = 7}}, {"", {.strided = 7}}},
      {{"", {.causal = true, .left = 0, .strided = 4}}, {"", {.causal = true, .dilation = 4}}}};
  for (const auto& pair : pairs) {
    SCOPED_TRACE(testing::Message() << "pair " << &pair - pairs);
    Problem a({{90, 150}, {1, 70}}, {4, 2, 24, 24}, 3), b({{90, 150}, {1, 70}}, {4, 2, 24, 24}, 3);
    a.set(pair.first).request(true, true), b.set(pair.second).request(true, true);
    CpuExec exec;
    a.run(exec), b.run(exec);
    test::expect_near(a.out.view(), b.out.view(), [](Index) { return 200 * kEps; });
    test::expect_near(a.lse.view(), b.lse.view(), [](Index) { return 100 * kEps; });
  }
}

}  // namespace
}  // namespace ashlar
