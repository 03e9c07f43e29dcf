// SPDX-License-Identifier: Apache-2.0
// Every pattern with every normaliser and every map of heads, on ragged packed batches.
#include "tests/ops/softmax_attention_support.hpp"

namespace ashlar {
namespace {

using test::Heads;
using test::kHeads;
using test::kNormalizers;
using test::Lengths;
using test::PatternCase;
using test::Problem;

// Of these each pattern meets several; keys are no multiple of a block of any size, but one is.
const std::vector<Lengths> kBatches[] = {{{67, 67}},  {{1, 333}},
                                         {{33, 131}}, {{5, 5}, {0, 40}, {1, 70}, {0, 0}, {66, 66}},
                                         {{64, 128}}, {{3, 200}, {2, 2}, {7, 150}},
                                         {{150, 150}}};

TEST(SoftmaxAttentionPattern, EachWithEveryNormalizerAndMapOfHeads) {
  unsigned count = 0;
  for (const PatternCase& c : test::pattern_cases())
    for (const AttentionNormalizer normalizer : kNormalizers)
      for (const Heads& heads : kHeads) {
        Problem p(kBatches[count % std::size(kBatches)], heads, count);
        p.set(c).set(normalizer);
        if (count % 4 == 0) p.request(false, false);
        SCOPED_TRACE(testing::Message() << c.name << ": " << p);
        p.expect();
        if (HasFatalFailure()) return;
        ++count;
      }
}

// Lengths of several tiles of queries and of keys, where whole blocks are skipped and others are full.
TEST(SoftmaxAttentionPattern, LongerThanManyTiles) {
  unsigned count = 0;
  for (const PatternCase& c : test::pattern_cases()) {
    Problem p({{count % 2 == 0 ? 330 : 140, 330}}, {2, 1, 8, 8}, count);
    p.set(c).request(true, false);
    SCOPED_TRACE(testing::Message() << c.name << ": " << p);
    p.expect();
    if (HasFatalFailure()) return;
    ++count;
  }
}

// Keys and queries of two different sequences: positions mean nothing.
TEST(SoftmaxAttentionPattern, CrossAttention) {
  for (const AttentionNormalizer normalizer : kNormalizers)
    for (const Heads& heads : kHeads) {
      Problem p({{130, 7}, {5, 0}, {0, 3}, {63, 130}, {1, 1}}, heads, 3);
      p.set(normalizer);
      SCOPED_TRACE(testing::Message() << p);
      p.expect();
      if (HasFatalFailure()) return;
    }
}

// Few queries with many keys: parts of the keys.
TEST(SoftmaxAttentionPattern, FewQueriesManyKeys) {
  for (const Index queries : {1, 5})
    for (const Heads& heads : {Heads{1, 1, 16, 16}, {4, 1, 16, 8}, {8, 2, 20, 20}, {16, 1, 24, 16, true}})
      for (const PatternCase& c : {PatternCase{"full"},
                                   {"causal", {.causal = true}},
                                   {"window", {.causal = true, .left = 2000}},
                                   {"blocks", {}, 64},
                                   {"blocks by head", {.causal = true}, 16, true},
                                   {"strided", {.causal = true, .left = 40, .strided = 33}}}) {
        Problem p({{queries, 4500}, {queries, 30}, {queries, 2051}}, heads, 11);
        p.set(c).request(true, queries == 5);
        SCOPED_TRACE(testing::Message() << c.name << ": " << p);
        p.expect();
        if (HasFatalFailure()) return;
      }
}

// Heads' rows one behind another, as a decoder's cache keeps them, and a value row apart from its key's.
TEST(SoftmaxAttentionPattern, HeadsOutermost) {
  const Index keys = 150;
  Problem p({{70, keys}}, {4, 2, 24, 40}, 5);
  test::Array<3> k({2, keys, 24}), v({2, keys, 40});
  for (Index h = 0; h < 2; ++h)
    for (Index j = 0; j < keys; ++j) {
      for (Index c = 0; c < 24; ++c) k.view()(h, j, c) = p.k[0].view()(j, h, c);
      for (Index c = 0; c < 40; ++c) v.view()(h, j, c) = p.v[0].view()(j, h, c);
    }
  auto turned = [](const View<const float, 3>& x) {
    return View<const float, 3>(x.data, {x.shape[1], x.shape[0], x.shape[2]},
                                {x.strides[1], x.strides[0], x.strides[2]});
  };
  const KeyValue kv{turned(k.cview()), turned(v.cview())};
  for (const PatternCase& c : {PatternCase{"causal", {.causal = true}}, {"blocks", {}, 16, true}}) {
    p.set(c).request(true, true);
    SoftmaxAttention args = p.args;
    args.sequences = {&kv, 1};
    p.expect([&](CpuExec& exec) { softmax_attention(args, exec); });
  }
}

// Rows of hidden keys and values hold NaN: those that no query sees, in blocks with keys that are seen.
TEST(SoftmaxAttentionPattern, HiddenKeysMayHoldNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  unsigned count = 0;
  for (const PatternCase& c : test::pattern_cases()) {
    Problem p({{3, 140}, {1, 90}}, kHeads[count % std::size(kHeads)], count);
    p.set(c).request(true, true);
    SCOPED_TRACE(testing::Message() << c.name << ": " << p);
    for (std::size_t n = 0; n < p.lengths.size(); ++n) {
      const Lengths& l = p.lengths[n];
      for (Index j = 0; j < l.keys; ++j)
        for (Index kh = 0; kh < p.heads.kv_heads; ++kh) {
          const Index group = p.heads.heads / p.heads.kv_heads;
          bool seen = false;
          for (Index h = kh * group; h < (kh + 1) * group; ++h)
            for (Index i = l.keys - l.queries; i < l.keys; ++i) seen |= p.args.pattern.visible(h, i, j);
          if (seen) continue;
          for (Index x = 0; x < p.heads.dim; ++x) p.k[n].view()(j, kh, x) = nan;
          for (Index x = 0; x < p.heads.value_dim && !p.heads.latent; ++x) p.v[n].view()(j, kh, x) = nan;
        }
    }
    p.expect();
    if (HasFatalFailure()) return;
    ++count;
  }
}

// Key 40 is hidden from the queries before it, and seen by those behind it.
TEST(SoftmaxAttentionPattern, NaNStaysWithTheQueriesThatSeeIt) {
  for (const PatternCase& c : {PatternCase{"causal", {.causal = true}},
                               {"window", {.causal = true, .left = 9}},
                               {"chunk", {.chunk = 24}},
                               {"blocks", {}, 16}}) {
    Problem p({{70, 70}}, {2, 2, 16, 16}, 3);
    p.set(c);
    for (Index x = 0; x < 16; ++x) p.v[0].view()(40, 0, x) = std::numeric_limits<float>::quiet_NaN();
    const Problem::Want want = p.want();
    for (CpuExec& exec : test::contexts()) {
      p.run(exec);
      for (Index i = 0; i < 70; ++i)
        ASSERT_EQ(std::isnan(p.out.view()(i, 0, 0)), p.args.pattern.visible(0, i, 40))
            << c.name << ": query " << i << " on " << name(exec.isa());
    }
  }
}

TEST(SoftmaxAttentionPattern, RowsThatSeeNothing) {
  const std::vector<Index> offsets = {0, 0, 1, 2}, keys = {0, 2};  // the first block of queries has none
  Problem p({{40, 40}, {3, 3}, {2, 0}}, {4, 2, 16, 24}, 3);
  for (const AttentionNormalizer normalizer : kNormalizers) {
    p.set(normalizer);
    p.args.pattern = {.blocks = {16, offsets, keys}};
    p.args.offsets = std::span<const Index>(p.offsets).first(3);
    p.args.sequences = std::span<const KeyValue>(p.sequences).first(2);
    p.args.q = p.q.cview().slice(0, 0, 43), p.args.out = p.out.view().slice(0, 0, 43);
    if (p.args.lse) p.args.lse = p.lse.view().slice(0, 0, 43);
    if (p.args.entropy) p.args.entropy = p.entropy.view().slice(0, 0, 43);
    const bool plus_one = normalizer == AttentionNormalizer::softmax_plus_one;
    for (CpuExec& exec : test::contexts()) {
      p.run(exec);
      for (const Index t : {0, 7, 15, 40, 42})
        for (Index h = 0; h < 4; ++h) {
          for (Index c = 0; c < 24; ++c) EXPECT_EQ(p.out.view()(t, h, c), 0) << "query " << t;
          if (!p.args.lse) continue;
          EXPECT_EQ(p.lse.view()(t, h), plus_one ? 0 : -std::numeric_limits<float>::infinity());
          EXPECT_EQ(p.entropy.view()(t, h), 0);
        }
      EXPECT_NE(p.out.view()(16, 0, 0), 0);
    }
  }
}

TEST(SoftmaxAttentionPattern, NoKeysAndNoQueries) {
  for (const AttentionNormalizer normalizer : kNormalizers)
    for (const std::vector<Lengths>& batch : {std::vector<Lengths>{{3, 0}}, {{0, 5}}, {{0, 0}}, {}}) {
      Problem p(batch, {4, 2, 16, 24}, 3);
      p.set(normalizer).expect();
    }
}

}  // namespace
}  // namespace ashlar
