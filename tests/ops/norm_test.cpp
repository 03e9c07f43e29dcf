// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/norm.hpp"

#include <numeric>

#include "ashlar/ref/norm.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  Index tokens, heads, dim;
  bool gate, weight_per_head;
};

TEST(RmsNorm, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const auto& [tokens, heads, dim, gated, per_head] :
       {Shape{1, 1, 1, false, false}, Shape{7, 1, 63, true, false}, Shape{5, 3, 67, true, true},
        Shape{2, 4, 130, false, true}, Shape{130, 2, 16, true, false}, Shape{0, 2, 16, false, false},
        Shape{3, 1, 4096, false, false}}) {
    Array<3> x({tokens, heads, dim}), gate({tokens, heads, dim}), out({tokens, heads, dim});
    Array<1> weight({per_head ? heads * dim : dim});
    x.normal(rng, 3), gate.normal(rng, 2), weight.normal(rng);
    std::vector<double> expected(static_cast<std::size_t>(tokens * heads * dim));
    RmsNormArgs<double> want{x.exact(), weight.exact(), {expected.data(), {tokens, heads, dim}}, 1e-5, 1};
    if (gated) want.gate = gate.exact();
    ref::rms_norm(want);
    for (CpuExec& exec : test::contexts()) {
      out.poison();
      RmsNorm args{x.cview(), weight.cview(), out.view(), 1e-5f, 1};
      if (gated) args.gate = gate.cview();
      rms_norm(args, exec);
      // Relative to the element: the sum of squares, three products and the gate.
      const double unit = (12 + static_cast<double>(dim) / 16) * test::kEps;
      test::expect_close(out.view(), want.out, [&](Index i) {
        return unit * std::abs(expected[static_cast<std::size_t>(i)]) + 1e-37;
      });
      out.expect_padding_untouched();
    }
  }
}

TEST(RmsNorm, RefusesShapesThatDiffer) {
  Array<3> x({2, 1, 8}), out({2, 1, 7});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              rms_norm({x.cview(), {}, out.view()}, exec);
            }),
            "rms_norm: out has shape [2, 1, 7], expected [2, 1, 8]");
}

TEST(L2Norm, MatchesTheEquation) {
  std::mt19937 rng(2);
  for (Index dim : {1, 7, 24, 67, 128}) {
    Array<3> x({5, 3, dim}), out({5, 3, dim});
    x.normal(rng);
    std::vector<double> expected(static_cast<std::size_t>(15 * dim));
    const View<double, 3> want(expected.data(), {5, 3, dim});
    ref::l2_norm<double>({x.exact(), want, 1e-6, 0.5});
    for (CpuExec& exec : test::contexts()) {
      out.poison();
      l2_norm({x.cview(), out.view(), 1e-6f, 0.5f}, exec);
      test::expect_close(out.view(), want, [&](Index i) {
        return (6 + static_cast<double>(dim) / 16) * test::kEps *
               std::abs(expected[static_cast<std::size_t>(i)]);
      });
      out.expect_padding_untouched();
    }
  }
}

TEST(SumNorm, MatchesTheEquation) {
  std::mt19937 rng(3);
  for (Index dim : {1, 7, 24, 67, 128}) {
    Array<3> x({5, 3, dim}), out({5, 3, dim});
    x.uniform(rng, 0.1f, 1);
    std::vector<double> expected(static_cast<std::size_t>(15 * dim));
    const View<double, 3> want(expected.data(), {5, 3, dim});
    ref::sum_norm<double>({x.exact(), want, 1e-4});
    for (CpuExec& exec : test::contexts()) {
      out.poison();
      sum_norm({x.cview(), out.view(), 1e-4f}, exec);
      // Of positive terms: a rounding a term, and the quotient's.
      test::expect_close(out.view(), want, [&](Index i) {
        return (6 + static_cast<double>(dim)) * test::kEps * std::abs(expected[static_cast<std::size_t>(i)]);
      });
      out.expect_padding_untouched();
      sum_norm({x.cview(), x.view()}, exec);
      for (Index h = 0; h < 3; ++h)
        EXPECT_NEAR(std::accumulate(x.view().at(4, h), x.view().at(4, h) + dim, 0.0), 1,
                    (6 + static_cast<double>(dim)) * test::kEps);
      ref::sum_norm<double>({x.exact(), want, 1e-4});
    }
  }
}

TEST(SumNorm, RefusesShapesThatDiffer) {
  Array<3> x({2, 1, 8}), out({2, 2, 8});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              sum_norm({x.cview(), out.view()}, exec);
            }),
            "sum_norm: out has shape [2, 2, 8], expected [2, 1, 8]");
}

}  // namespace
}  // namespace ashlar
