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
            "decay_gate: a_log has shape [7], expected [8]");
  EXPECT_EQ(test::refusal([&] {
              decay_gate({x.cview(), rates.cview(), bias.cview(), out.view()}, exec);
            }),
            "decay_gate: dt_bias has shape [9], expected [8]");
}

}  // namespace
}  // namespace ashlar
