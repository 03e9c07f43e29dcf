// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/activation.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr Activation kAll[] = {Activation::identity,  Activation::silu,      Activation::sigmoid,
                               Activation::relu,      Activation::relu2,     Activation::tanh,
                               Activation::gelu,      Activation::gelu_tanh, Activation::softplus,
                               Activation::elu1,      Activation::relu6,     Activation::hardsigmoid,
                               Activation::hardswish, Activation::leaky_relu};

// The error that activation-inl.hpp states, of a result `want` at x.
double bound(Activation f, double x, double want) {
  const double amplified = f == Activation::gelu_tanh && x < 0 ? 0.15 * std::abs(x * x * x) : 0;
  // x + 3 is rounded: near -3 that is no error of the last place of what remains.
  const bool hard = f == Activation::hardsigmoid || f == Activation::hardswish;
  const double sum =
      hard && std::abs(x) < 6 ? test::kEps * (f == Activation::hardswish ? std::abs(x) : 1) : 0;
  return (4 + amplified) * test::kEps * std::abs(want) + sum + 1.2e-36;
}

TEST(Activate, FunctionsAreAsPreciseAsStated) {
  const Index n = 400000;
  Array<2> x({1, n}), out({1, n});
  Index i = 0;
  x.each([&](float& e) {  // half of them evenly in [-110, 110], half of them powers of 1.001 of either sign
    const double step = static_cast<double>(i++ / 2), sign = i / 2 % 2 == 0 ? 1 : -1;
    e = static_cast<float>(i % 2 == 0 ? -110 + 220 * step / (n / 2)
                                      : sign * std::exp(-80 + 90 * step / (n / 2)));
  });
  std::vector<double> expected(static_cast<std::size_t>(n));
  const View<double, 2> want(expected.data(), {1, n});
  for (Activation f : kAll) {
    ref::activate<double>({x.exact(), {}, want, f});
    for (CpuExec& exec : test::contexts()) {
      SCOPED_TRACE(testing::Message() << "function " << static_cast<int>(f) << ", " << name(exec.isa()));
      activate({x.cview(), {}, out.poison().view(), f}, exec);
      test::expect_close(out.view(), want, [&](Index k) { return bound(f, x.cview()(0, k), want(0, k)); });
    }
  }
}

TEST(Activate, HasItsLimitsAtInfinityAndKeepsNan) {
  float x[] = {kInf, -kInf, std::numeric_limits<float>::quiet_NaN(), 3e38f, -3e38f, 0}, y[6];
  const float big = 3e38f;
  struct Case {
    Activation f;
    float at_inf, at_minus_inf, at_big, at_minus_big, at_zero;
  };
  for (const Case& c : {Case{Activation::identity, kInf, -kInf, big, -big, 0},
                        {Activation::silu, kInf, 0, big, 0, 0},
                        {Activation::sigmoid, 1, 0, 1, 0, 0.5f},
                        {Activation::relu, kInf, 0, big, 0, 0},
                        {Activation::relu2, kInf, 0, kInf, 0, 0},
                        {Activation::tanh, 1, -1, 1, -1, 0},
                        {Activation::gelu, kInf, 0, big, 0, 0},
                        {Activation::gelu_tanh, kInf, 0, big, 0, 0},
                        {Activation::softplus, kInf, 0, big, 0, 0.693147181f},
                        {Activation::elu1, kInf, 0, big, 0, 1},
                        {Activation::relu6, 6, 0, 6, 0, 0},
                        {Activation::hardsigmoid, 1, 0, 1, 0, 0.5f},
                        {Activation::hardswish, kInf, 0, big, 0, 0},
                        {Activation::leaky_relu, kInf, -kInf, big, -big * kNegativeSlope, 0}})
    for (CpuExec& exec : test::contexts()) {
      SCOPED_TRACE(testing::Message() << "function " << static_cast<int>(c.f) << ", " << name(exec.isa()));
      for (Index width : {1, 6}) {  // in the tail of a row, and in vectors
        activate({{x, {6 / width, width}}, {}, {y, {6 / width, width}}, c.f}, exec);
        EXPECT_EQ(y[0], c.at_inf);
        EXPECT_EQ(y[1], c.at_minus_inf);
        EXPECT_TRUE(std::isnan(y[2])) << y[2];
        EXPECT_EQ(y[3], c.at_big);
        EXPECT_EQ(y[4], c.at_minus_big);
        EXPECT_FLOAT_EQ(y[5], c.at_zero);
      }
    }
}

TEST(Activate, MultipliesByUpAndScaleAtEverySize) {
  std::mt19937 rng(3);
  for (Index tokens : {0, 1, 5})
    for (Index dim : {0, 1, 7, 63, 67, 130}) {
      Array<2> x({tokens, dim}), up({tokens, dim}), out({tokens, dim});
      x.normal(rng, 4), up.normal(rng);
      std::vector<double> expected(static_cast<std::size_t>(tokens * dim));
      const View<double, 2> want(expected.data(), {tokens, dim});
      for (Activation f : kAll) {
        ref::activate<double>({x.exact(), up.exact(), want, f, 2.5});
        for (CpuExec& exec : test::contexts()) {
          activate({x.cview(), up.cview(), out.poison().view(), f, 2.5f}, exec);
          test::expect_close(out.view(), want, [&](Index i) {
            const double w = expected[static_cast<std::size_t>(i)];  // two products more
            return bound(f, x.cview()(i / dim, i % dim), w) + test::kEps * std::abs(w) + 1e-35;
          });
          out.expect_padding_untouched();
        }
      }
    }
}

// What clipping leaves of slope * x: f multiplies that rounding by z f'(z) / f(z), at most |z| for
// exponential tails and z^2 + 0.2 |z|^3 for those of the gelus.
TEST(Activate, ClipsScalesAndOffsets) {
  std::mt19937 rng(6);
  struct Case {
    float scale, slope, limit, up_offset;
  };
  for (const Case& c : {Case{1 / 1.702f, 1.702f, 7, 1}, Case{5, 0.2f, kInf, 0}, Case{1, 1, 0.5f, 0},
                        Case{1, 1, kInf, -0.25f}})
    for (Index dim : {0, 1, 7, 63, 67})
      for (bool gated : {false, true}) {
        constexpr Index kTokens = 3;
        Array<2> x({kTokens, dim}), up({kTokens, dim}), out({kTokens, dim});
        x.normal(rng, 4), up.normal(rng, 5);
        std::vector<double> expected(static_cast<std::size_t>(kTokens * dim));
        const View<double, 2> want(expected.data(), {kTokens, dim});
        for (Activation f : kAll) {
          ActivateArgs<double> exact{x.exact(), {}, want, f, c.scale, c.slope, c.limit, c.up_offset};
          Activate args{x.cview(), {}, out.view(), f, c.scale, c.slope, c.limit, c.up_offset};
          if (gated) exact.up = up.exact(), args.up = up.cview();
          ref::activate<double>(exact);
          for (CpuExec& exec : test::contexts()) {
            out.poison();
            activate(args, exec);
            test::expect_close(out.view(), want, [&](Index i) {
              const double w = std::abs(expected[static_cast<std::size_t>(i)]);
              const double z = c.slope * std::min(x.cview()(i / dim, i % dim), c.limit), m = std::abs(z);
              return bound(f, z, w) * 1.01 + (3 + m + m * m + 0.2 * m * m * m) * test::kEps * w + 1e-34;
            });
            out.expect_padding_untouched();
          }
        }
      }
}

TEST(Activate, ClippingKeepsNanAndEndsAtTheLimit) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float x[] = {kInf, nan, 1, 1, 1}, up[] = {1, 1, nan, kInf, -kInf};
  float y[5];
  for (CpuExec& exec : test::contexts())
    for (Index width : {1, 5}) {
      activate({{x, {5 / width, width}},
                {up, {5 / width, width}},
                {y, {5 / width, width}},
                Activation::identity,
                1,
                1,
                7,
                1},
               exec);
      EXPECT_EQ(y[0], 14);
      EXPECT_TRUE(std::isnan(y[1]) && std::isnan(y[2]));
      EXPECT_EQ(y[3], 8);
      EXPECT_EQ(y[4], -6);
    }
}

TEST(Activate, WritesOverItsInputs) {
  std::mt19937 rng(4);
  Array<2> x({9, 67}), up({9, 67}), out({9, 67});
  x.normal(rng), up.normal(rng);
  CpuExec exec;
  activate({x.cview(), up.cview(), out.view()}, exec);
  Array<2> over_x = x, over_up = up;
  activate({over_x.cview(), up.cview(), over_x.view()}, exec);
  activate({x.cview(), over_up.cview(), over_up.view()}, exec);
  test::expect_close(over_x.view(), out.cview(), [](Index) { return 0; });
  test::expect_close(over_up.view(), out.cview(), [](Index) { return 0; });
}

TEST(Activate, DoesNotDependOnThreads) {
  std::mt19937 rng(5);
  Array<2> x({70, 1100}), one({70, 1100}), many({70, 1100});
  x.normal(rng, 3);
  CpuExec single({1}), three({3});
  activate({x.cview(), {}, one.view(), Activation::gelu}, single);
  activate({x.cview(), {}, many.view(), Activation::gelu}, three);
  test::expect_close(many.view(), one.cview(), [](Index) { return 0; });
}

TEST(Activate, RefusesShapesThatDiffer) {
  Array<2> x({2, 8}), up({2, 7}), out({3, 8});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              activate({x.cview(), up.cview(), x.view()}, exec);
            }),
            "activate: up has shape [2, 7], expected [2, 8]");
  EXPECT_EQ(test::refusal([&] {
              activate({x.cview(), {}, out.view()}, exec);
            }),
            "activate: out has shape [3, 8], expected [2, 8]");
  EXPECT_EQ(test::refusal([&] {
              activate({x.cview(), {}, x.view(), Activation::silu, 1, 1, 0}, exec);
            }),
            "activate: limit is 0.000000, expected a positive number");
}

}  // namespace
}  // namespace ashlar
