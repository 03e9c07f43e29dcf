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

TEST(LayerNorm, MatchesTheEquation) {
  std::mt19937 rng(3);
  for (const Shape& shape :
       {Shape{1, 1, 1, false, false}, Shape{7, 1, 63, true, false}, Shape{5, 3, 67, true, true},
        Shape{2, 4, 130, false, true}, Shape{130, 2, 16, true, false}, Shape{0, 2, 16, false, false},
        Shape{3, 1, 4096, false, false}, Shape{4, 5, 7, false, true}})
    for (bool biased : {true, false})
      for (float offset : {0.0f, 20.0f}) {
        const Index tokens = shape.tokens, heads = shape.heads, dim = shape.dim;
        const bool gated = shape.gate, per_head = shape.weight_per_head;
        Array<3> x({tokens, heads, dim}), gate({tokens, heads, dim}), out({tokens, heads, dim});
        Array<1> weight({per_head ? heads * dim : dim}), bias({per_head ? heads * dim : dim});
        x.normal(rng, 3), gate.normal(rng, 2), weight.normal(rng), bias.normal(rng);
        x.each([&](float& e) { e += offset; });
        std::vector<double> expected(static_cast<std::size_t>(tokens * heads * dim));
        LayerNormArgs<double> want{x.exact(), weight.exact(), {}, {expected.data(), {tokens, heads, dim}}};
        if (biased) want.bias = bias.exact();
        if (gated) want.gate = gate.exact();
        ref::layer_norm(want);
        for (CpuExec& exec : test::contexts()) {
          LayerNorm args{x.cview(), weight.cview(), {}, out.poison().view()};
          if (biased) args.bias = bias.cview();
          if (gated) args.gate = gate.cview();
          layer_norm(args, exec);
          // The mean has dim / lanes roundings of sums as large as the row; its error is divided by the
          // deviation, here 3. Weights, biases and gates are up to 5.
          const double scale = dim == 1 ? 1 : (offset + 12) / 2;
          const double unit = (12 + static_cast<double>(dim) / 16) * test::kEps * scale;
          test::expect_close(out.view(), want.out, [&](Index i) {
            const Index t = i / (heads * dim), h = i / dim % heads, k = i % dim,
                        at = per_head ? h * dim + k : k;
            const double g = gated ? std::abs(gate.cview()(t, h, k)) : 1.0;
            return unit * (std::abs(weight.cview()(at)) + std::abs(biased ? bias.cview()(at) : 0.0f)) *
                   (g + 1);
          });
          out.expect_padding_untouched();
        }
      }
}

TEST(LayerNorm, OfAConstantRowIsTheBias) {
  float x[] = {7, 7, 7, 7, 7}, weight[] = {1, 2, 3, 4, 5}, bias[] = {5, 4, 3, 2, 1}, out[5];
  for (CpuExec& exec : test::contexts()) {
    layer_norm({{x, {1, 1, 5}}, {weight, {5}}, {bias, {5}}, {out, {1, 1, 5}}}, exec);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(out[i], bias[i]);
  }
}

TEST(LayerNorm, WritesOverItsInputAndDoesNotDependOnThreads) {
  std::mt19937 rng(4);
  Array<3> x({300, 3, 67}), one({300, 3, 67});
  x.normal(rng);
  CpuExec single({1}), three({3});
  layer_norm({x.cview(), {}, {}, one.view()}, single);
  layer_norm({x.cview(), {}, {}, x.view()}, three);
  test::expect_close(x.view(), one.cview(), [](Index) { return 0; });
}

TEST(LayerNorm, RefusesShapesThatDiffer) {
  Array<3> x({2, 3, 8}), out({2, 3, 8});
  Array<1> weight({24}), bias({9});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              layer_norm({x.cview(), weight.cview(), bias.cview(), out.view()}, exec);
            }),
            "layer_norm: bias has shape [9], expected [8]");
  EXPECT_EQ(test::refusal([&] {
              layer_norm({x.cview(), bias.cview(), {}, out.view()}, exec);
            }),
            "layer_norm: weight has shape [9], expected [8]");
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
