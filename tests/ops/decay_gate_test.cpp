// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/decay_gate.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

TEST(DecayGate, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (Index tokens : {0, 1, 7, 130})
    for (Index heads : {0, 1, 7, 30, 63, 67})
      for (bool biased : {false, true}) {
        Array<2> x({tokens, heads}), out({tokens, heads});
        Array<1> a_log({heads}), bias({heads});
        x.normal(rng, 12), a_log.uniform(rng, -4, 3), bias.uniform(rng, -7, 0);
        std::vector<double> expected(static_cast<std::size_t>(tokens * heads));
        DecayGateArgs<double> want{x.exact(), a_log.exact(), {}, {expected.data(), {tokens, heads}}};
        if (biased) want.dt_bias = bias.exact();
        ref::decay_gate(want);
        for (CpuExec& exec : test::contexts()) {
          DecayGate args{x.cview(), a_log.cview(), {}, out.poison().view()};
          if (biased) args.dt_bias = bias.cview();
          decay_gate(args, exec);
          // softplus and exp, a product, and the sum's rounding, which softplus multiplies by up to |x +
          // bias|.
          test::expect_close(out.view(), want.out, [&](Index i) {
            const double sum = x.cview()(i / heads, i % heads) + (biased ? bias.cview()(i % heads) : 0.0f);
            return (6 + std::abs(sum) / 2) * test::kEps * std::abs(expected[static_cast<std::size_t>(i)]) +
                   1e-36;
          });
          out.expect_padding_untouched();
        }
      }
}

TEST(DecayGate, IsNeverPositiveAndHasItsLimits) {
  const float inf = std::numeric_limits<float>::infinity();
  float x[] = {-inf, -1000, -90, 90, inf}, a_log[] = {0, 0, 0, 0, 0}, g[5];
  for (CpuExec& exec : test::contexts()) {
    decay_gate({{x, {1, 5}}, {a_log, {5}}, {}, {g, {1, 5}}}, exec);
    EXPECT_EQ(g[0], 0);
    EXPECT_EQ(g[1], 0);
    EXPECT_LE(g[2], 0);
    EXPECT_EQ(g[3], -90);
    EXPECT_EQ(g[4], -inf);
  }
}

TEST(DecayGate, WritesOverItsInputAndDoesNotDependOnThreads) {
  std::mt19937 rng(2);
  Array<2> x({3000, 33}), one({3000, 33});
  Array<1> a_log({33});
  x.normal(rng), a_log.normal(rng);
  CpuExec single({1}), three({3});
  decay_gate({x.cview(), a_log.cview(), {}, one.view()}, single);
  decay_gate({x.cview(), a_log.cview(), {}, x.view()}, three);
  test::expect_close(x.view(), one.cview(), [](Index) { return 0; });
}

TEST(DecayGate, RefusesShapesThatDiffer) {
  Array<2> x({2, 8}), out({2, 8});
  Array<1> a_log({7}), bias({9});
  Array<1> rates({8});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              decay_gate({x.cview(), a_log.cview(), {}, out.view()}, exec);
            }),
            "decay_gate: a_log has shape [7], expected heads that divide 8 channels");
  EXPECT_EQ(test::refusal([&] {
              decay_gate({x.cview(), rates.cview(), bias.cview(), out.view()}, exec);
            }),
            "decay_gate: dt_bias has shape [9], expected [8]");
}

// One channel's rate, shared by its head's channels, its bias and its lower bound; and what multiplies a
// rounding error of the logit on its way to g, relative to g.
struct Formula {
  DecayFormula formula;
  bool heads, biased;
  float bound = -5, temperature = 1, floor = -std::numeric_limits<float>::infinity();
};

TEST(DecayGate, MatchesEachFormulaForEachChannel) {
  const Formula formulas[] = {{DecayFormula::softplus, true, true},
                              {DecayFormula::softplus, false, false},
                              {DecayFormula::bounded, true, true},
                              {DecayFormula::bounded, false, false, kRwkv7Bound},
                              {DecayFormula::log_sigmoid, false, false, -5, 16},
                              {DecayFormula::log_sigmoid, false, true, -5, 16, -0.25f},
                              {DecayFormula::exponential, false, false},
                              {DecayFormula::lower_bounded, false, false}};
  std::mt19937 rng(3);
  for (const Formula& f : formulas)
    for (Index tokens : {0, 1, 7, 130})
      for (std::array<Index, 2> shape : {std::array<Index, 2>{1, 1}, {3, 5}, {2, 16}, {4, 33}, {1, 0}}) {
        const Index channels = shape[0] * shape[1];
        Array<2> x({tokens, channels}), out({tokens, channels});
        Array<1> a_log({shape[0]}), bias({channels}), lb({channels});
        x.normal(rng, 12), a_log.uniform(rng, -3, 2), bias.uniform(rng, -4, 4), lb.uniform(rng, 0, 1);
        if (channels > 3) lb.view()(0) = 0, lb.view()(1) = 1, lb.view()(2) = 1e-12f, lb.view()(3) = 0.999f;
        std::vector<double> expected(static_cast<std::size_t>(tokens * channels));
        DecayGateArgs<double> want{x.exact(), {}, {}, {expected.data(), {tokens, channels}}, f.formula};
        want.bound = f.bound, want.temperature = f.temperature, want.floor = f.floor;
        if (f.heads) want.a_log = a_log.exact();
        if (f.biased) want.dt_bias = bias.exact();
        if (f.formula == DecayFormula::lower_bounded) want.lower_bound = lb.exact();
        ref::decay_gate(want);
        for (CpuExec& exec : test::contexts()) {
          DecayGate args{x.cview(), {}, {}, out.poison().view(), f.formula, f.bound, f.temperature, f.floor};
          if (f.heads) args.a_log = a_log.cview();
          if (f.biased) args.dt_bias = bias.cview();
          if (f.formula == DecayFormula::lower_bounded) args.lower_bound = lb.cview();
          decay_gate(args, exec);
          // A few roundings, and those of the logit, which an exponential multiplies by the logit.
          test::expect_close(out.view(), want.out, [&](Index i) {
            const Index c = i % channels;
            const double rate = f.heads ? std::exp(a_log.cview()(c / shape[1])) : 1;
            const double logit = x.cview()(i / channels, c) + (f.biased ? bias.cview()(c) : 0.0f);
            const double steep = f.formula == DecayFormula::bounded ? rate * 3 : 1;
            return (10 + steep * std::abs(logit)) * test::kEps *
                       std::abs(expected[static_cast<std::size_t>(i)]) +
                   2e-36;
          });
          out.expect_padding_untouched();
        }
      }
}

TEST(DecayGate, TinyDecaysKeepTheirAccuracy) {
  float x[] = {16, 30, 60, 80}, lb[] = {0.5, 0, 0.25, 0.9375}, g[4];
  for (CpuExec& exec : test::contexts()) {
    decay_gate({{x, {1, 4}},
                {},
                {},
                {g, {1, 4}},
                DecayFormula::lower_bounded,
                -5,
                1,
                -1,
                View<const float, 1>(lb, {4})},
               exec);
    for (int i = 0; i < 4; ++i)
      EXPECT_NEAR(g[i] / (-(1 - lb[i]) * std::exp(-static_cast<double>(x[i]))), 1, 1e-6) << i;
    decay_gate({{x, {1, 4}}, {}, {}, {g, {1, 4}}, DecayFormula::log_sigmoid, -5, 16}, exec);
    for (int i = 0; i < 4; ++i)
      EXPECT_NEAR(g[i] / (-std::exp(-static_cast<double>(x[i])) / 16), 1, 1e-6) << i;
  }
}

TEST(DecayGate, FormulasHaveTheirLimitsAndKeepNaN) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  float x[] = {-inf, -1000, 1000, inf, nan}, lb[] = {0, 0.5, 0.5, 0, 0.5}, g[5];
  for (CpuExec& exec : test::contexts()) {
    auto run = [&](DecayFormula f) {
      DecayGate args{{x, {1, 5}}, {}, {}, {g, {1, 5}}, f};
      if (f == DecayFormula::lower_bounded) args.lower_bound = {lb, {5}};
      decay_gate(args, exec);
      EXPECT_TRUE(std::isnan(g[4]));
      return std::vector<float>(g, g + 4);
    };
    EXPECT_EQ(run(DecayFormula::softplus), (std::vector<float>{0, 0, -1000, -inf}));
    EXPECT_EQ(run(DecayFormula::bounded), (std::vector<float>{0, 0, -5, -5}));
    EXPECT_EQ(run(DecayFormula::log_sigmoid), (std::vector<float>{-inf, -1000, 0, 0}));
    EXPECT_EQ(run(DecayFormula::exponential), (std::vector<float>{0, 0, -inf, -inf}));
    const std::vector<float> bounded = run(DecayFormula::lower_bounded);
    EXPECT_EQ(bounded[0], -inf);
    EXPECT_NEAR(bounded[1], std::log(0.5), 1e-7);
    EXPECT_EQ(bounded[2], 0);
    EXPECT_EQ(bounded[3], 0);
  }
}

TEST(DecayGate, GivesTheTiedInputGate) {
  float x[] = {-90, -3, 0, 4, 16}, lb[] = {0, 0.25, 0.5, 0.75, 0.5}, g[5], k[5];
  for (CpuExec& exec : test::contexts()) {
    DecayGate args{{x, {1, 5}}, {}, {}, {g, {1, 5}}, DecayFormula::lower_bounded};
    args.lower_bound = {lb, {5}}, args.complement = {k, {1, 5}};
    decay_gate(args, exec);
    // 1 - exp(g) = (1 - lb) sigmoid(-x); three roundings and those of g.
    for (int i = 0; i < 5; ++i) {
      const double want = (1 - lb[i]) / (1 + std::exp(static_cast<double>(x[i])));
      EXPECT_NEAR(k[i], want, 12 * test::kEps * want) << i;
    }
  }
}

TEST(DecayGate, GivesMambasStep) {
  float x[] = {-30, 0, 2, 30}, a_log[] = {0, 1}, g[4], step[4];
  CpuExec exec;
  DecayGate args{{x, {1, 4}}, {a_log, {2}}, {}, {g, {1, 4}}};
  args.step = {step, {1, 4}}, args.min_step = 0.01f, args.max_step = 20;
  decay_gate(args, exec);
  const double want[] = {0.01, std::log(2.0), std::log1p(std::exp(2.0)), 20};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(step[i], want[i], 1e-6 * want[i]);
    EXPECT_NEAR(g[i], -std::exp(a_log[i / 2]) * want[i], 1e-6 * std::exp(1) * want[i]);
  }
}

TEST(DecayGate, RefusesWhatAFormulaDoesNotReadAndValuesOutOfRange) {
  Array<2> x({2, 4}), out({2, 4});
  Array<1> lb({4});
  lb.each([](float& e) { e = 0.5f; });
  CpuExec exec;
  auto refused = [&](auto&& change) {
    DecayGate args{x.cview(), {}, {}, out.view()};
    change(args);
    return test::refusal([&] { decay_gate(args, exec); });
  };
  EXPECT_EQ(refused([&](DecayGate& a) { a.lower_bound = lb.cview(); }),
            "decay_gate: lower_bound was given, expected none with the formula softplus");
  EXPECT_EQ(refused([&](DecayGate& a) { a.formula = DecayFormula::exponential, a.a_log = lb.cview(); }),
            "decay_gate: a_log was given, expected none with the formula exponential");
  EXPECT_EQ(refused([&](DecayGate& a) { a.formula = DecayFormula::lower_bounded; }),
            "decay_gate: lower_bound has shape [0], expected [4]");
  EXPECT_EQ(refused([&](DecayGate& a) { a.formula = DecayFormula::bounded, a.bound = 1; }),
            "decay_gate: bound is 1.000000, expected a finite number up to 0");
  EXPECT_EQ(refused([&](DecayGate& a) { a.formula = DecayFormula::log_sigmoid, a.temperature = 0; }),
            "decay_gate: temperature is 0.000000, expected more than 0");
  EXPECT_EQ(refused([&](DecayGate& a) { a.formula = DecayFormula::log_sigmoid, a.floor = 1; }),
            "decay_gate: floor is 1.000000, expected up to 0");
  EXPECT_EQ(refused([&](DecayGate& a) { a.min_step = 2, a.max_step = 1; }),
            "decay_gate: steps are 2.000000 to 1.000000, expected 0 <= min_step <= max_step");
  lb.view()(2) = 1.5f;
  EXPECT_EQ(
      refused([&](DecayGate& a) { a.formula = DecayFormula::lower_bounded, a.lower_bound = lb.cview(); }),
      "decay_gate: lower_bound[2] is 1.500000, expected 0 to 1");
}

TEST(FixedDecays, AreTheirFormulas) {
  const auto retention = retention_decay(40);
  EXPECT_NEAR(retention.data()[0], std::log(1 - 1.0 / 32), 1e-8);
  EXPECT_FLOAT_EQ(retention.data()[39], static_cast<float>(-std::exp2(-44)));
  const auto lightning = lightning_decay(4, 1, 8);
  EXPECT_EQ(lightning.data()[0], 0);
  EXPECT_FLOAT_EQ(lightning.data()[3], -2 * 3 * 7.0f / 8);
  const auto minimax = minimax_decay(8, 2, 5);
  EXPECT_FLOAT_EQ(minimax.data()[0], static_cast<float>(-0.5 * (1 - 2 / (4 + 1e-5) + 1e-5)));
  EXPECT_FLOAT_EQ(minimax_decay(4, 0, 1).data()[3], static_cast<float>(-(1 + 1e-5) / 256));
  EXPECT_EQ(test::refusal([] { retention_decay(0); }), "retention_decay: heads is 0, expected 1 or more");
  EXPECT_EQ(test::refusal([] { minimax_decay(4, 5, 5); }), "minimax_decay: layer is 5, expected 0 to 4");
}

}  // namespace
}  // namespace ashlar
