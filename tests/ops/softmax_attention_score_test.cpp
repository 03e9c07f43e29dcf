// SPDX-License-Identifier: Apache-2.0
// Score functions alone and composed, the tables' broadcast forms, extreme scores, top-k; and the tables that
// are made from slopes and buckets, against values worked out by hand.
#include "tests/ops/softmax_attention_support.hpp"

namespace ashlar {
namespace {

using test::Heads;
using test::kEps;
using test::kHeads;
using test::kNormalizers;
using test::Lengths;
using test::PatternCase;
using test::Problem;
using test::ScoreCase;

constexpr float kLowest = -std::numeric_limits<float>::infinity();

const std::vector<Lengths> kPacked = {{20, 75}, {0, 9}, {1, 131}, {66, 66}};

const PatternCase kFew[] = {{"full"},
                            {"causal", {.causal = true}},
                            {"window", {.causal = true, .left = 20}},
                            {"blocks", {}, 16, true},
                            {"chunk or global", {.chunk = 40}, 0, false, {3}, {60}}};

const ScoreCase kScores[] = {
    {.name = "scale", .scale = 0.7f},
    {.name = "negative scale", .scale = -0.3f},
    {.name = "small cap", .soft_cap = 0.5f},
    {.name = "cap", .scale = 1.5f, .soft_cap = 20},
    {.name = "alibi", .alibi = true},
    {.name = "relative", .reach = 3},
    {.name = "relative, its middle alone", .reach = 0},
    {.name = "relative, farther than the keys", .reach = 200},
    {.name = "relative of all heads", .reach = 20, .relative_by_head = false},
    {.name = "sinks", .sinks = true},
    {.name = "bias", .bias = "nhqk"},
    {.name = "bias that hides", .bias = "nhqk", .hiding = true},
    {.name = "cap and alibi", .soft_cap = 3, .alibi = true},
    {.name = "cap and sinks", .soft_cap = 3, .sinks = true},
    {.name = "alibi and relative", .alibi = true, .reach = 9},
    {.name = "bias and sinks", .bias = "hqk", .hiding = true, .sinks = true},
    {"all of it", 0.4f, 6, true, 12, true, "nqk", true, true},
};

TEST(SoftmaxAttentionScore, EachWithPatternsAndNormalizers) {
  unsigned count = 0;
  for (const ScoreCase& score : kScores)
    for (const PatternCase& pattern : kFew)
      for (const AttentionNormalizer normalizer : kNormalizers) {
        // Softmax with each; of the others one, in turn.
        const bool softmax = normalizer == AttentionNormalizer::softmax;
        if (!softmax && normalizer != kNormalizers[1 + count % 4]) continue;
        if (score.sinks && !test::is_softmax(normalizer)) continue;
        Problem p(kPacked, kHeads[count % std::size(kHeads)], count);
        p.set(pattern).set(normalizer).set(score, count);
        SCOPED_TRACE(testing::Message() << score.name << ", " << pattern.name << ": " << p);
        p.expect();
        if (HasFatalFailure()) return;
        ++count;
      }
}

TEST(SoftmaxAttentionScore, BiasInEveryBroadcastForm) {
  unsigned count = 0;
  for (const char* axes : {"nhqk", "hqk", "nqk", "nhk", "qk", "hk", "nk", "k", "nhq", "q"})
    for (const bool hiding : {false, true})
      for (const PatternCase& pattern : {kFew[0], kFew[1]}) {
        Problem p(kPacked, kHeads[count % std::size(kHeads)], count);
        p.set(pattern)
            .request(true, true)
            .set(ScoreCase{.name = "bias", .bias = axes, .hiding = hiding}, count);
        SCOPED_TRACE(testing::Message() << axes << (hiding ? " hiding " : " ") << pattern.name << ": " << p);
        p.expect();
        if (HasFatalFailure()) return;
        ++count;
      }
}

TEST(SoftmaxAttentionScore, FewQueriesManyKeys) {
  for (const ScoreCase& score : kScores)
    for (const Index queries : {1, 4}) {
      Problem p({{queries, 1500}, {queries, 100}}, {4, 2, 16, 16}, 9);
      p.set(kFew[queries == 1 ? 1 : 2]).request(true, true).set(score);
      SCOPED_TRACE(testing::Message() << score.name << ": " << p);
      p.expect();
      if (HasFatalFailure()) return;
    }
}

// Keys and queries of no columns: the bias is the score (Synthesizer).
TEST(SoftmaxAttentionScore, BiasAlone) {
  for (const AttentionNormalizer normalizer : kNormalizers)
    for (const char* axes : {"nhqk", "qk"})
      for (const Index kv_heads : {3, 1}) {
        Problem p({{40, 70}, {3, 90}}, {3, kv_heads, 0, 20}, 2);
        p.set(kFew[1]).set(normalizer).set(ScoreCase{.name = "bias", .bias = axes});
        SCOPED_TRACE(testing::Message() << axes << ": " << p);
        p.expect();
      }
}

TEST(SoftmaxAttentionScore, BiasHidesWholeRows) {
  for (const bool sinks : {false, true}) {
    Problem p({{6, 90}}, {4, 2, 16, 24}, 2);
    p.set(ScoreCase{.name = "bias", .bias = "qk", .hiding = true, .sinks = sinks}).request(true, true);
    for (CpuExec& exec : test::contexts()) {
      p.run(exec);
      for (Index h = 0; h < 4; ++h) {
        for (Index c = 0; c < 24; ++c) EXPECT_EQ(p.out.view()(3, h, c), 0);
        if (sinks)
          EXPECT_NEAR(p.lse.view()(3, h), p.sinks->view()(h), 1e-5);
        else
          EXPECT_EQ(p.lse.view()(3, h), kLowest);
        EXPECT_NEAR(p.entropy.view()(3, h), 0, 1e-5);
      }
    }
  }
}

TEST(SoftmaxAttentionScore, SinksAtTheExtremes) {
  Problem p({{30, 90}}, {2, 1, 16, 24}, 2), none({{30, 90}}, {2, 1, 16, 24}, 2);
  p.set(ScoreCase{.name = "sinks", .sinks = true}).request(true, true);
  p.sinks->view()(0) = kLowest, p.sinks->view()(1) = 3000;
  p.expect();
  none.request(true, true);
  for (CpuExec& exec : test::contexts()) {
    p.run(exec), none.run(exec);
    test::expect_near(p.out.cview().slice(1, 0, 1), none.out.cview().slice(1, 0, 1),
                      [](Index) { return 16 * kEps; });
    for (Index i = 0; i < 30; ++i) {
      EXPECT_EQ(p.out.view()(i, 1, 0), 0);
      EXPECT_EQ(p.lse.view()(i, 1), 3000);
    }
  }
}

TEST(SoftmaxAttentionScore, SharpAndExtreme) {
  for (const float sharp : {30.0f, 3000.0f, 1e-20f})
    for (const PatternCase& pattern : kFew)
      for (const AttentionNormalizer normalizer : kNormalizers) {
        Problem p({{66, 140}, {1, 300}}, {4, 2, 16, 24}, 4, sharp);
        p.set(pattern).set(normalizer);
        SCOPED_TRACE(testing::Message() << "sharp " << sharp << ", " << pattern.name << ": " << p);
        p.expect();
        if (HasFatalFailure()) return;
      }
}

// All scores are 1e4 or all are -1e4: a softmax is the mean, to rounding.
TEST(SoftmaxAttentionScore, EqualScoresOfAnySize) {
  for (const float score : {1e4f, -1e4f, 1e30f, -1e30f}) {
    const Index keys = 100;
    Problem p({{5, keys}}, {2, 2, 1, 8}, 4);
    p.q.each([&](float& e) { e = score; });
    p.k[0].each([](float& e) { e = 1; });
    p.request(true, true);
    for (CpuExec& exec : test::contexts()) {
      p.run(exec);
      for (Index h = 0; h < 2; ++h)
        for (Index c = 0; c < 8; ++c) {
          double mean = 0;
          for (Index j = 0; j < keys; ++j) mean += static_cast<double>(p.v[0].view()(j, h, c)) / keys;
          ASSERT_NEAR(p.out.view()(4, h, c), mean, 100 * kEps) << score << " on " << name(exec.isa());
          ASSERT_NEAR(p.lse.view()(4, h), score + std::log(100.0f), std::abs(score) * 1e-6) << score;
        }
    }
  }
}

TEST(SoftmaxAttentionScore, TopK) {
  unsigned count = 0;
  for (const Index k : {1, 2, 5, 64, 1000})
    for (const PatternCase& pattern : kFew)
      for (const AttentionNormalizer normalizer : kNormalizers) {
        Problem p(kPacked, kHeads[count % std::size(kHeads)], count);
        p.set(pattern).set(normalizer).integers(count);
        p.args.top_k = k;
        SCOPED_TRACE(testing::Message() << pattern.name << ": " << p);
        p.expect();
        if (HasFatalFailure()) return;
        ++count;
      }
}

// Scores of three values: far more than k keys are at least the k-th largest.
TEST(SoftmaxAttentionScore, TopKKeepsTies) {
  for (const Index k : {1, 3, 20})
    for (const Index queries : {1, 70}) {
      Problem p({{queries, 200}}, {4, 2, 1, 8}, 3);
      p.integers(3, 1).request(true, true);
      p.args.top_k = k;
      SCOPED_TRACE(testing::Message() << p);
      p.expect();
    }
}

TEST(SoftmaxAttentionScore, TopKRanksWholeScores) {
  Problem p(kPacked, {4, 2, 16, 16}, 3);
  p.set(kFew[1])
      .set(ScoreCase{.name = "sum", .alibi = true, .bias = "hk", .sinks = true})
      .request(true, true);
  p.integers(3);
  for (Index h = 0; h < 4; ++h) p.alibi->view()(h) = 0.25f * static_cast<float>(h);
  p.bias->each([](float& e) { e = std::round(e); });
  for (const Index k : {1, 7}) {
    p.args.top_k = k;
    p.expect();
  }
}

TEST(AlibiSlopes, AreTheSeriesOfThePaper) {
  auto expect = [](Index heads, const std::vector<double>& exponents) {
    const Tensor<float, 1> slopes = alibi_slopes(heads);
    ASSERT_EQ(slopes.shape()[0], heads);
    for (Index h = 0; h < heads; ++h)
      EXPECT_FLOAT_EQ(slopes.data()[h],
                      static_cast<float>(std::exp2(-exponents[static_cast<std::size_t>(h)])))
          << h << " of " << heads;
  };
  expect(1, {8});
  expect(2, {4, 8});
  expect(3, {4, 8, 2});
  expect(6, {2, 4, 6, 8, 1, 3});
  expect(8, {1, 2, 3, 4, 5, 6, 7, 8});
  expect(12, {1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5});
  EXPECT_EQ(test::refusal([] { alibi_slopes(0); }), "alibi_slopes: there are 0 heads, expected 1 or more");
}

// Weights that name their bucket and head, and the first distance of each bucket.
void expect_buckets(Index buckets, Index max_distance, bool bidirectional, const std::vector<Index>& first) {
  Tensor<float, 2> weights({buckets, 2});
  for (Index b = 0; b < buckets; ++b)
    for (Index h = 0; h < 2; ++h) weights.view()(b, h) = static_cast<float>(b + 100 * h);
  const Tensor<float, 2> table = t5_relative(weights.view(), max_distance, bidirectional);
  const Index reach = table.shape()[1] / 2;
  ASSERT_EQ(table.shape()[0], 2);
  ASSERT_GE(reach, first.back());
  for (Index offset = -reach; offset <= reach; ++offset) {
    const Index distance = bidirectional ? std::abs(offset) : std::max<Index>(0, -offset);
    Index bucket = 0;
    while (bucket + 1 < static_cast<Index>(first.size()) &&
           first[static_cast<std::size_t>(bucket) + 1] <= distance)
      ++bucket;
    if (bidirectional && offset > 0) bucket += buckets / 2;
    for (Index h = 0; h < 2; ++h)
      EXPECT_EQ(table.view()(h, reach + offset), static_cast<float>(bucket + 100 * h)) << "at " << offset;
  }
}

TEST(T5Relative, BucketsStartWhereTheyShould) {
  // 8 single distances, then 8 2^(n / 2).
  expect_buckets(32, 128, true, {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91});
  // 16 single distances, then 16 2^(3 n / 16).
  expect_buckets(32, 128, false, {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                  16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113});
  // 2 single distances, then 2 8^(n / 2).
  expect_buckets(8, 16, true, {0, 1, 2, 6});
  expect_buckets(4, 9, false, {0, 1, 2, 5});  // 2 single, then 2 4.5^(n / 2) = 4.24
  expect_buckets(4, 2, true, {0, 1});
  expect_buckets(2, 3, false, {0, 1});
}

TEST(T5Relative, RefusesBadInput) {
  Tensor<float, 2> one({1, 2}), three({3, 2}), eight({8, 2});
  EXPECT_EQ(test::refusal([&] { t5_relative(one.view(), 128, false); }),
            "t5_relative: there are 1 buckets, expected at least 2");
  EXPECT_EQ(test::refusal([&] { t5_relative(three.view(), 128, true); }),
            "t5_relative: there are 3 buckets, expected at least 4");
  EXPECT_EQ(test::refusal([&] { t5_relative(eight.view(), 4, false); }),
            "t5_relative: max_distance is 4, expected more than 4, the buckets of one distance each");
}

// As the score's table it is the buckets' bias, farther than max_distance too.
TEST(T5Relative, IsATableOfTheScore) {
  test::Array<2> weights({8, 4});
  std::mt19937 rng(1);
  weights.normal(rng);
  const Tensor<float, 2> table = t5_relative(weights.cview(), 16, true);
  Problem p({{60, 90}}, {4, 2, 16, 16}, 1), with_bias({{60, 90}}, {4, 2, 16, 16}, 1);
  p.args.score.relative = p.relative.emplace(std::array<Index, 2>{4, table.shape()[1]}).cview();
  for (Index h = 0; h < 4; ++h)
    for (Index i = 0; i < table.shape()[1]; ++i) p.relative->view()(h, i) = table.view()(h, i);
  with_bias.set(ScoreCase{.name = "bias", .bias = "hqk"});
  for (Index h = 0; h < 4; ++h)
    for (Index i = 0; i < 60; ++i)
      for (Index j = 0; j < 90; ++j) {
        const Index offset = j - (30 + i), distance = std::abs(offset);
        const Index bucket = (distance < 2 ? distance : distance < 6 ? 2 : 3) + (offset > 0 ? 4 : 0);
        with_bias.bias->view()(0, h, i, j) = weights.view()(bucket, h);
      }
  p.expect();
  with_bias.expect();
  CpuExec exec;
  p.run(exec), with_bias.run(exec);
  test::expect_near(p.out.cview(), with_bias.out.cview(), [](Index) { return 100 * kEps; });
}

}  // namespace
}  // namespace ashlar
