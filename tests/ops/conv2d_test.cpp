// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/conv2d.hpp"

#include <cstring>

#include "ashlar/core/conv2d_weight.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  std::array<Index, 4> x;
  Index outputs;
  std::array<Index, 2> kernel;
  Conv2dSteps steps;
  Index groups = 1;

  std::array<Index, 4> out() const {
    const auto extent = [&](int axis) {
      return conv2d_extent(x[1 + axis], kernel[axis], steps.stride[axis], steps.padding[axis],
                           steps.dilation[axis]);
    };
    return {x[0], extent(0), extent(1), outputs};
  }
  Index each() const { return x[3] / groups; }
};

const Shape kShapes[] = {
    {{1, 1, 1, 1}, 1, {1, 1}, {}},
    {{2, 7, 9, 13}, 67, {3, 3}, {{1, 1}, {1, 1}}},
    {{1, 6, 5, 130}, 63, {3, 3}, {{1, 1}, {1, 1}}},
    {{2, 11, 14, 5}, 7, {3, 3}, {{2, 2}, {1, 1}}},
    {{1, 12, 12, 3}, 4, {3, 3}, {{1, 1}, {2, 2}, {2, 2}}},
    {{1, 9, 8, 4}, 5, {3, 1}, {{2, 1}, {1, 0}}},
    {{1, 5, 9, 6}, 9, {1, 3}, {{1, 2}, {0, 3}}},
    {{1, 18, 23, 3}, 8, {4, 4}, {{4, 4}}},
    {{3, 13, 17, 9}, 70, {1, 1}, {}},
    {{1, 7, 5, 8}, 6, {1, 1}, {{2, 3}, {1, 0}}},
    {{2, 7, 8, 12}, 18, {3, 3}, {{1, 1}, {1, 1}}, 3},
    {{1, 5, 4, 130}, 134, {3, 3}, {{1, 1}, {1, 1}}, 2},
    {{1, 5, 5, 8}, 12, {1, 1}, {}, 4},
    {{1, 7, 150, 16}, 17, {3, 3}, {{1, 1}, {1, 1}}},  // several tiles
    {{1, 21, 80, 40}, 12, {3, 3}, {{2, 1}, {2, 1}, {2, 1}}},
    {{1, 9, 80, 130}, 12, {3, 3}, {}},
    {{2, 37, 20, 9}, 10, {3, 3}, {{1, 1}, {1, 1}}},
    {{1, 45, 9, 6}, 9, {5, 3}, {{2, 1}, {4, 1}, {2, 1}}},
    {{1, 40, 7, 32}, 48, {3, 3}, {{1, 1}, {1, 1}}, 2},
    {{1, 35, 6, 5}, 11, {1, 1}, {{1, 2}}},
    {{1, 1, 5, 3}, 9, {1, 1}, {{1, 1}, {20, 0}}},    // rows that see padding alone
    {{1, 20, 150, 9}, 3, {3, 3}, {{1, 1}, {1, 1}}},  // few outputs
    {{2, 9, 11, 16}, 1, {5, 5}, {{2, 1}, {2, 3}, {1, 2}}},
    {{1, 3, 200, 8}, 2, {1, 3}, {{1, 1}, {0, 70}, {1, 70}}},
    {{2, 13, 11, 10}, 10, {7, 7}, {{1, 1}, {3, 3}}, 10},  // depthwise
    {{1, 9, 30, 67}, 67, {3, 3}, {{1, 1}, {1, 1}}, 67},
    {{1, 9, 30, 33}, 33, {5, 5}, {{1, 1}, {2, 2}}, 33},
    {{1, 8, 21, 20}, 20, {3, 3}, {{2, 2}, {1, 1}}, 20},
    {{1, 17, 21, 35}, 35, {4, 4}, {{4, 4}}, 35},
    {{1, 9, 10, 6}, 12, {3, 3}, {{2, 2}, {1, 1}}, 6},
    {{1, 9, 10, 17}, 51, {3, 3}, {{1, 1}, {1, 1}}, 17},
    {{1, 9, 3, 18}, 18, {3, 7}, {{1, 1}, {3, 3}, {3, 1}}, 18},
};

struct Data {
  Array<4> x, weight, out, residual;
  Array<1> bias;

  Data(const Shape& s, std::mt19937& rng, Index padding = 3)
      : x(s.x, padding),
        weight({s.outputs, s.each(), s.kernel[0], s.kernel[1]}, 0),
        out(s.out(), padding),
        residual(s.out(), padding),
        bias({s.outputs}) {
    x.uniform(rng, -1, 1), weight.uniform(rng, -1, 1), bias.uniform(rng, -1, 1);
    residual.uniform(rng, -1, 1);
  }
};

// |terms| <= 1 each, so partial sums are at most as many as there are terms; each addition rounds.
double bound_of(const Shape& s) {
  const double terms = static_cast<double>(s.each() * s.kernel[0] * s.kernel[1] + 1);
  return test::kEps * (terms * terms / 2 + 8 * terms + 1);
}

TEST(Conv2d, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Shape& s : kShapes)
    for (Index padding : {0, 3}) {
      Data d(s, rng, padding);
      for (bool all : {true, false}) {
        std::vector<double> expected(static_cast<std::size_t>(d.out.count()));
        ref::Conv2dArgs<double> want{d.x.exact(), d.weight.exact(), {}, {expected.data(), s.out()},
                                     s.groups,    s.steps};
        if (all)
          want.bias = d.bias.exact(), want.residual = d.residual.exact(), want.activation = Activation::gelu;
        ref::conv2d(want);
        for (CpuExec& exec : test::contexts()) {
          const Conv2dWeight weight(d.weight.cview(), s.groups, exec);
          Conv2dArgs args{d.x.cview(), weight, {}, d.out.poison().view(), s.steps};
          if (all)
            args.bias = d.bias.cview(), args.residual = d.residual.cview(),
            args.activation = Activation::gelu;
          conv2d(args, exec);
          SCOPED_TRACE(concat(to_string(s.x), " -> ", to_string(s.out()), " by ", to_string(s.kernel)));
          test::expect_close(d.out.view(), want.out, [&](Index) { return 1.2 * bound_of(s); });
          d.out.expect_padding_untouched();
        }
      }
    }
}

TEST(Conv2d, TakesWeightsOfBf16AndItsOwnResidual) {
  std::mt19937 rng(2);
  for (const Shape& s : kShapes) {
    Data d(s, rng);
    std::vector<bf16> narrow;
    d.weight.each([&](float& w) {
      narrow.emplace_back(w);
      w = static_cast<float>(narrow.back());
    });
    CpuExec exec;
    std::vector<std::byte> anywhere(1 + 4 * static_cast<std::size_t>(d.weight.count()));  // as in a file
    std::memcpy(anywhere.data() + 1, d.weight.view().data, anywhere.size() - 1);
    const Conv2dWeight wide(AnyView<4>(anywhere.data() + 1, DType::f32, d.weight.view().shape), s.groups,
                            exec),
        small(AnyView<4>(narrow.data(), DType::bf16, {s.outputs, s.each(), s.kernel[0], s.kernel[1]}),
              s.groups, exec);
    Conv2dArgs args{d.x.cview(), wide, d.bias.cview(), d.out.poison().view(), s.steps};
    args.residual = d.residual.cview();
    args.activation = Activation::leaky_relu, args.negative_slope = 0.2f;
    conv2d(args, exec);
    Conv2dArgs other{d.x.cview(), small, d.bias.cview(), d.residual.view(), s.steps};
    other.residual = d.residual.cview();
    other.activation = Activation::leaky_relu, other.negative_slope = 0.2f;
    conv2d(other, exec);
    test::expect_close(d.residual.view(), d.out.cview(), [](Index) { return 0; });
  }
}

// Channels of a wider image, input and output; and a 1 x 1 convolution is the product that it is.
TEST(Conv2d, WorksOnSlicesOfWiderImages) {
  std::mt19937 rng(3);
  for (const Shape& s : kShapes) {
    Data d(s, rng, 0);
    Array<4> wide_x({s.x[0], s.x[1], s.x[2], s.x[3] + 11}, 0), wide_out(s.out(), 21);
    wide_x.uniform(rng, -1, 1);
    const auto x = wide_x.view().slice(3, 5, 5 + s.x[3]);
    for (Index i = 0; i < d.x.count(); ++i) {
      const Index c = i % s.x[3], w = i / s.x[3] % s.x[2], h = i / s.x[3] / s.x[2] % s.x[1];
      x(i / (s.x[1] * s.x[2] * s.x[3]), h, w, c) = d.x.view().data[i];
    }
    CpuExec exec;
    const Conv2dWeight weight(d.weight.cview(), s.groups, exec);
    conv2d({d.x.cview(), weight, d.bias.cview(), d.out.poison().view(), s.steps}, exec);
    conv2d({x, weight, d.bias.cview(), wide_out.poison().view(), s.steps}, exec);
    test::expect_close(wide_out.view(), d.out.cview(), [](Index) { return 0; });
    wide_out.expect_padding_untouched();
  }
}

TEST(Conv2d, DoesNotDependOnThreadsNorOtherImages) {
  std::mt19937 rng(4);
  for (Shape s : kShapes) {
    s.x[0] = 3;
    Data d(s, rng);
    Array<4> many(s.out()), alone(s.out());
    CpuExec single({1}), three({3});
    const Conv2dWeight weight(d.weight.cview(), s.groups, single);
    Conv2dArgs args{d.x.cview(), weight, d.bias.cview(), d.out.view(), s.steps, Activation::silu};
    conv2d(args, single);
    args.out = many.view();
    conv2d(args, three);
    test::expect_close(many.view(), d.out.cview(), [](Index) { return 0; });
    for (Index n = 0; n < 3; ++n) {
      args.x = d.x.cview().slice(0, n, n + 1), args.out = alone.view().slice(0, n, n + 1);
      conv2d(args, single);
    }
    test::expect_close(alone.view(), d.out.cview(), [](Index) { return 0; });
  }
}

TEST(Conv2d, TakesNoImages) {
  CpuExec exec;
  Array<4> weight({2, 3, 3, 3}, 0);
  std::mt19937 rng(5);
  weight.normal(rng);
  const Conv2dWeight filters(weight.cview(), 1, exec);
  conv2d({View<const float, 4>(nullptr, {0, 5, 5, 3}), filters, {}, View<float, 4>(nullptr, {0, 3, 3, 2})},
         exec);
}

TEST(Conv2d, RefusesWhatDoesNotFit) {
  std::mt19937 rng(6);
  const Shape s{{1, 5, 6, 4}, 6, {3, 3}, {}, 2};
  Data d(s, rng);
  CpuExec exec;
  const Conv2dWeight weight(d.weight.cview(), 2, exec), none;
  const auto sentence = [&](auto&& change) {
    Conv2dArgs args{d.x.cview(), weight, d.bias.cview(), d.out.view(), s.steps};
    change(args);
    return test::refusal([&] { conv2d(args, exec); });
  };
  EXPECT_EQ(test::refusal([&] {
              conv2d({d.x.cview(), none, {}, d.out.view()}, exec);
            }),
            "conv2d: the weight is empty");
  EXPECT_EQ(sentence([&](Conv2dArgs& a) { a.x = a.x.slice(3, 0, 2); }),
            "conv2d: x has shape [1, 5, 6, 2], expected [1, 5, 6, 4]");
  EXPECT_EQ(sentence([&](Conv2dArgs& a) {
              a.steps.padding = {1, 1};
            }),
            "conv2d: out has shape [1, 3, 4, 6], expected [1, 5, 6, 6]");
  EXPECT_EQ(sentence([&](Conv2dArgs& a) { a.x = a.x.slice(1, 0, 2); }),
            "conv2d: x of shape [1, 2, 6, 4] is smaller than the kernel of 3 x 3");
  EXPECT_EQ(sentence([&](Conv2dArgs& a) {
              a.steps.stride = {0, 1};
            }),
            "conv2d: stride 0, padding 0 and dilation 1, expected at least 1, 0 and 1");
  EXPECT_EQ(sentence([&](Conv2dArgs& a) { a.bias = a.bias.slice(0, 0, 5); }),
            "conv2d: bias has shape [5], expected [6]");
  EXPECT_EQ(sentence([&](Conv2dArgs& a) { a.residual = d.x.cview(); }),
            "conv2d: residual has shape [1, 5, 6, 4], expected [1, 3, 4, 6]");
  EXPECT_EQ(test::refusal([&] { Conv2dWeight(d.weight.cview(), 4, exec); }),
            "conv2d: 4 groups do not divide the 6 outputs");
  EXPECT_EQ(test::refusal([&] {
              Conv2dWeight(AnyView<4>(&d, DType::i8, {2, 1, 1, 1}), 1, exec);
            }),
            "conv2d: the filters are of type i8, expected f32 or bf16");
}

}  // namespace
}  // namespace ashlar
