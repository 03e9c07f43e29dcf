// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/rope.hpp"

#include <numbers>

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  Index tokens, heads, dim, pairs;
};

class RopeTest : public testing::TestWithParam<RopeLayout> {};

TEST_P(RopeTest, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const auto& [tokens, heads, dim, pairs] :
       {Shape{1, 1, 2, 1}, Shape{7, 3, 63, 31}, Shape{5, 2, 67, 7}, Shape{3, 1, 130, 65},
        Shape{130, 2, 64, 16}, Shape{1, 32, 128, 64}, Shape{2, 1, 16, 0}, Shape{0, 2, 16, 8},
        Shape{2, 0, 16, 8}}) {
    Array<3> x({tokens, heads, dim}), out({tokens, heads, dim});
    x.normal(rng);
    Array<1> inverse({pairs});
    inverse.uniform(rng, 0, 1);
    if (pairs > 1) inverse.view()(1) = 1, inverse.view()(0) = 1e-6f;
    std::vector<Index> at(static_cast<std::size_t>(tokens));
    const Index places[] = {0, 1, -3, 77, 4095, 131071, 1048576, 900000000, -2000000000};
    for (std::size_t t = 0; t < at.size(); ++t) at[t] = t < 9 ? places[t] : static_cast<Index>(rng() % 32768);
    const View<const Index, 1> positions(at.data(), {tokens});
    std::vector<double> expected(static_cast<std::size_t>(tokens * heads * dim));
    const View<double, 3> want(expected.data(), {tokens, heads, dim});
    ref::rope<double>({x.exact(), positions, inverse.exact(), want, 1.25, GetParam()});
    for (CpuExec& exec : test::contexts()) {
      rope({x.cview(), positions, inverse.cview(), out.poison().view(), 1.25f, GetParam()}, exec);
      // Both table entries and both products are rounded: 4 half eps of factor * (|x0| + |x1|).
      const double unit = 2.1 * test::kEps * 1.25 * 1.4142136 * test::largest(x.cview());
      const Index row = x.cview().shape[2], turned = 2 * inverse.cview().shape[0];
      test::expect_close(out.view(), want, [&](Index i) { return i % row < turned ? unit : 0.0; });
      out.expect_padding_untouched();
    }
  }
}

TEST_P(RopeTest, WritesOverItsInputAndDoesNotDependOnThreads) {
  std::mt19937 rng(2);
  Array<3> x({300, 3, 70}), one({300, 3, 70});
  x.normal(rng);
  Array<1> inverse({33});
  inverse.uniform(rng, 0, 1);
  std::vector<Index> positions(300);
  for (std::size_t t = 0; t < 300; ++t) positions[t] = static_cast<Index>(t);
  CpuExec single({1}), three({3});
  Rope args{x.cview(), {positions.data(), {300}}, inverse.cview(), one.view(), 1, GetParam()};
  rope(args, single);
  args.out = x.view();
  rope(args, three);
  test::expect_close(x.view(), one.cview(), [](Index) { return 0; });
}

INSTANTIATE_TEST_SUITE_P(Layouts, RopeTest, testing::Values(RopeLayout::half_split, RopeLayout::interleaved));

TEST(Rope, RefusesWhatDoesNotFit) {
  Array<3> x({2, 1, 8});
  Array<1> inverse({5});
  const Index at[] = {0, 1};
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              rope({x.cview(), {at, {2}}, inverse.cview(), x.view()}, exec);
            }),
            "rope: 5 inverse frequencies turn 10 elements of a head of 8");
  EXPECT_EQ(test::refusal([&] {
              rope({x.cview(), {at, {1}}, inverse.cview(), x.view()}, exec);
            }),
            "rope: positions has shape [1], expected [2]");
}

double relative(float got, double want) { return std::abs(got - want) / want; }

TEST(RopeFrequencies, ArePowersOfTheta) {
  const RopeFrequencies r = rope_frequencies(64, 10000);
  ASSERT_EQ(r.inverse.size(), 32);
  EXPECT_EQ(r.factor, 1);
  for (Index i = 0; i < 32; ++i)
    EXPECT_LE(relative(r.inverse.data()[i], std::pow(10000.0, -static_cast<double>(i) / 32)), test::kEps / 2);
}

TEST(RopeFrequencies, OfLlama3KeepShortWavesAndStretchLongOnes) {
  const double theta = 500000, factor = 8, low = 1, high = 4, original = 8192;
  const RopeFrequencies r = rope_frequencies(128, theta, Llama3Scaling{factor, low, high, 8192});
  int kept = 0, divided = 0, blended = 0;
  for (Index i = 0; i < 64; ++i) {
    const double inverse = std::pow(theta, -static_cast<double>(i) / 64),
                 turns = original * inverse / 2 / std::numbers::pi;
    double want = inverse;
    if (turns > high) {
      ++kept;
    } else if (turns < low) {
      ++divided, want = inverse / factor;
    } else {
      ++blended, want = inverse * (1 / factor + (turns - low) / (high - low) * (1 - 1 / factor));
    }
    EXPECT_LE(relative(r.inverse.data()[i], want), test::kEps) << i;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(divided, 0);
  EXPECT_GT(blended, 0);
  EXPECT_EQ(r.factor, 1);
}

TEST(RopeFrequencies, OfYarnRampBetweenTheTwoTurns) {
  // gpt-oss: theta 150000, dim 64, 4096 positions, factor 32; dim(r) = 64 ln(4096 / (2 pi r)) / (2 ln
  // 150000).
  auto dimension = [](double turns) {
    return 32 * std::log(4096 / (2 * std::numbers::pi * turns)) / std::log(150000.0);
  };
  for (bool truncate : {false, true}) {
    YarnScaling scaling{32, 4096};
    scaling.truncate = truncate;
    const RopeFrequencies r = rope_frequencies(64, 150000, scaling);
    EXPECT_LE(relative(r.factor, 0.1 * std::log(32.0) + 1), test::kEps);
    const double low = truncate ? std::floor(dimension(32)) : dimension(32);
    const double high = truncate ? std::ceil(dimension(1)) : dimension(1);
    ASSERT_GT(low, 0);
    ASSERT_LT(high, 31);
    for (Index i = 0; i < 32; ++i) {
      const double inverse = std::pow(150000.0, -static_cast<double>(i) / 32), n = static_cast<double>(i);
      const double share = n < low ? 0 : n > high ? 1 : (n - low) / (high - low);
      EXPECT_LE(relative(r.inverse.data()[i], inverse * (1 - share + share / 32)), test::kEps) << i;
    }
  }
  YarnScaling scaling{4, 64};
  scaling.attention_factor = 1.5;
  EXPECT_EQ(rope_frequencies(16, 10000, scaling).factor, 1.5f);
}

TEST(RopeFrequencies, RefuseWhatMakesNoSense) {
  EXPECT_EQ(test::refusal([] { rope_frequencies(7, 10000); }),
            "rope_frequencies: dim is 7, expected a positive even number");
  EXPECT_EQ(test::refusal([] { rope_frequencies(8, -1); }),
            "rope_frequencies: theta is -1.000000, expected a positive number");
  EXPECT_EQ(test::refusal([] {
              rope_frequencies(8, 10000, Llama3Scaling{8, 4, 1, 8192});
            }),
            "rope_frequencies: high_frequency_factor is 1.000000, expected more than 4.000000, the low one");
  EXPECT_EQ(test::refusal([] {
              rope_frequencies(8, 10000, YarnScaling{0, 64});
            }),
            "rope_frequencies: factor is 0.000000, expected a positive number");
}

}  // namespace
}  // namespace ashlar
