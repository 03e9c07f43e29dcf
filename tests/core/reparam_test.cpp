// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/reparam.hpp"

#include "ashlar/ref/conv2d.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Norm {
  Norm(Index n, std::mt19937& rng) : weight({n}), bias({n}), mean({n}), var({n}) {
    weight.uniform(rng, -2, 2), bias.uniform(rng, -1, 1), mean.uniform(rng, -1, 1), var.uniform(rng, 0.1f, 2);
  }
  BatchNormStatistics statistics() { return {weight.cview(), bias.cview(), mean.cview(), var.cview(), 1e-5}; }
  double operator()(double x, Index c) {
    const auto at = [c](Array<1>& a) { return static_cast<double>(a.view()(c)); };
    return (x - at(mean)) / std::sqrt(at(var) + 1e-5) * at(weight) + at(bias);
  }
  Array<1> weight, bias, mean, var;
};

using Image = std::vector<double>;

// In double, of one image of 6 x 5.
Image convolved(const Image& x, Array<4>& weight, Array<1>* bias, Index inputs, Index outputs, Index groups,
                std::array<Index, 2> padding) {
  Image out(static_cast<std::size_t>(30 * outputs));
  ref::Conv2dArgs<double> args{
      {x.data(), {1, 6, 5, inputs}}, weight.exact(), {}, {out.data(), {1, 6, 5, outputs}}, groups};
  if (bias != nullptr) args.bias = bias->exact();
  args.steps.padding = padding;
  ref::conv2d(args);
  return out;
}
Image convolved(const Image& x, const Filters& f, Index inputs, Index groups) {
  const auto s = f.weight.shape();
  Array<4> weight(s, 0);
  Array<1> bias({s[0]}, 0);
  std::copy_n(f.weight.data(), f.weight.size(), weight.view().data);
  std::copy_n(f.bias.data(), f.bias.size(), bias.view().data);
  return convolved(x, weight, &bias, inputs, s[0], groups, {s[2] / 2, s[3] / 2});
}

Image random_image(Index channels, std::mt19937& rng) {
  std::uniform_real_distribution<double> u(-1, 1);
  Image x(static_cast<std::size_t>(30 * channels));
  for (double& e : x) e = u(rng);
  return x;
}

void expect_equal(const Image& got, const Image& want) {
  ASSERT_EQ(got.size(), want.size());
  // Filters and biases are rounded once: sums of at most 100 terms of at most 30 in magnitude.
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 100 * 30 * test::kEps) << i;
}

TEST(Reparam, FoldsANormOnEitherSide) {
  std::mt19937 rng(1);
  for (bool biased : {true, false}) {
    Array<4> weight({6, 2, 1, 1}, 0);
    Array<1> bias({6});
    weight.uniform(rng, -1, 1), bias.uniform(rng, -1, 1);
    Norm after(6, rng), before(4, rng);
    const Image x = random_image(4, rng);
    const auto b = biased ? bias.cview() : View<const float, 1>();
    Image want = convolved(x, weight, biased ? &bias : nullptr, 4, 6, 2, {0, 0});
    for (std::size_t i = 0; i < want.size(); ++i) want[i] = after(want[i], static_cast<Index>(i % 6));
    expect_equal(convolved(x, fold_norm_after(weight.cview(), b, after.statistics()), 4, 2), want);
    Image normed = x;
    for (std::size_t i = 0; i < x.size(); ++i) normed[i] = before(x[i], static_cast<Index>(i % 4));
    expect_equal(convolved(x, fold_norm_before(before.statistics(), weight.cview(), b, 2), 4, 2),
                 convolved(normed, weight, biased ? &bias : nullptr, 4, 6, 2, {0, 0}));
  }
}

TEST(Reparam, AddsBranchesUp) {
  std::mt19937 rng(2);
  for (Index groups : {1, 2}) {
    Array<4> wide({6, 6 / groups, 3, 3}, 0), point({6, 1, 1, 1}, 0), flat({6, 3, 1, 3}, 0);
    Array<1> bias({6});
    wide.uniform(rng, -1, 1), point.uniform(rng, -1, 1), flat.uniform(rng, -1, 1), bias.uniform(rng, -1, 1);
    Norm first(6, rng), identity(6, rng), average(6, rng);
    const ReparamBranch branches[] = {{wide.cview(), {}, groups, first.statistics()},
                                      {point.cview(), bias.cview(), 6, {}},
                                      {flat.cview(), {}, 2, {}},
                                      {{}, {}, 1, identity.statistics()},
                                      {{}, {}, 1, average.statistics(), {3, 3}}};
    const Image x = random_image(6, rng);
    Array<4> mean({6, 1, 3, 3}, 0);
    mean.each([](float& e) { e = 1.0f / 9; });
    const Image a = convolved(x, wide, nullptr, 6, 6, groups, {1, 1}),
                b = convolved(x, point, &bias, 6, 6, 6, {0, 0}),
                c = convolved(x, flat, nullptr, 6, 6, 2, {0, 1}),
                e = convolved(x, mean, nullptr, 6, 6, 6, {1, 1});
    Image want(a.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      const Index o = static_cast<Index>(i % 6);
      want[i] = first(a[i], o) + b[i] + c[i] + identity(x[i], o) + average(e[i], o);
    }
    expect_equal(convolved(x, reparam(branches, 6, 6, {3, 3}, groups), 6, groups), want);
  }
}

TEST(Reparam, RefusesWhatDoesNotFit) {
  std::mt19937 rng(3);
  Array<4> wide({6, 6, 3, 3}, 0), even({6, 6, 2, 2}, 0);
  wide.uniform(rng, -1, 1), even.uniform(rng, -1, 1);
  Norm five(5, rng);
  const auto sentence = [&](const ReparamBranch& branch, Index outputs, std::array<Index, 2> kernel,
                            Index groups) {
    return test::refusal([&] { reparam({&branch, 1}, 6, outputs, kernel, groups); });
  };
  EXPECT_EQ(sentence({even.cview()}, 6, {3, 3}, 1),
            "reparam: a branch's kernel of [2, 2] does not lie centred in one of [3, 3]");
  EXPECT_EQ(sentence({wide.cview()}, 6, {1, 3}, 1),
            "reparam: a branch's kernel of [3, 3] does not lie centred in one of [1, 3]");
  EXPECT_EQ(sentence({{}}, 8, {3, 3}, 1),
            "reparam: an identity branch has 6 inputs and 8 outputs, expected as many");
  EXPECT_EQ(sentence({wide.cview()}, 6, {3, 3}, 2),
            "reparam: a branch of 1 groups does not fit into 2 groups of 6 inputs and 6 outputs");
  EXPECT_EQ(sentence({wide.cview(), {}, 1, five.statistics()}, 6, {3, 3}, 1),
            "reparam: mean has shape [5], expected [6]");
}

}  // namespace
}  // namespace ashlar
