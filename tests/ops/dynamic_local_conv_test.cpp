// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/dynamic_local_conv.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  std::array<Index, 4> x;
  std::array<Index, 2> kernel;
  Index groups;
  Index first = 0, rows = -1;  // -1: all

  Index wanted() const { return rows < 0 ? x[1] : rows; }
  Index taps() const { return kernel[0] * kernel[1]; }
};

const Shape kShapes[] = {
    {{1, 1, 1, 1}, {1, 1}, 1},        {{1, 1, 1, 6}, {7, 7}, 1},
    {{2, 7, 5, 24}, {7, 7}, 4},       {{1, 9, 17, 30}, {5, 5}, 6},
    {{1, 4, 11, 12}, {3, 3}, 3},      {{1, 6, 3, 63}, {3, 5}, 63},  // as many groups as channels
    {{1, 5, 4, 67}, {5, 3}, 1},       {{2, 5, 6, 130}, {3, 3}, 26},
    {{1, 3, 4, 90}, {7, 7}, 15},      {{3, 9, 8, 20}, {5, 7}, 5, 2, 3},
    {{1, 9, 8, 48}, {7, 7}, 8, 8, 1}, {{1, 40, 70, 16}, {3, 3}, 2},
};

struct Data {
  Array<4> x, out;
  Array<5> kernels;
  explicit Data(const Shape& s, std::mt19937& rng)
      : x(s.x),
        out({s.x[0], s.wanted(), s.x[2], s.x[3]}),
        kernels({s.x[0], s.wanted(), s.x[2], s.taps(), s.groups}) {
    x.uniform(rng, -1, 1), kernels.uniform(rng, -1, 1);
  }
  DynamicLocalConv args(const Shape& s) {
    return {x.cview(), kernels.view(), out.poison().view(), s.kernel, s.first};
  }
};

TEST(DynamicLocalConv, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Shape& s : kShapes) {
    Data d(s, rng);
    Array<4> want({s.x[0], s.wanted(), s.x[2], s.x[3]});
    const View<double, 4> expected = want.exact();
    ref::dynamic_local_conv(
        DynamicLocalConvArgs<double>{d.x.exact(), d.kernels.exact(), expected, s.kernel, s.first});
    for (CpuExec& exec : test::contexts()) {
      dynamic_local_conv(d.args(s), exec);
      SCOPED_TRACE(concat(to_string(s.x), " by ", to_string(s.kernel), ", groups ", s.groups));
      const double taps = static_cast<double>(s.taps());  // of products of at most one, added one by one
      test::expect_close(d.out.view(), expected, [&](Index) { return test::kEps * taps * (taps + 1) / 2; });
      d.out.expect_padding_untouched();
    }
  }
}

// A one at the centre of each kernel takes x as it is.
TEST(DynamicLocalConv, TheCentreAloneIsTheIdentity) {
  std::mt19937 rng(2);
  const Shape s{{1, 6, 7, 36}, {7, 7}, 6};
  Data d(s, rng);
  d.kernels.each([](float& k) { k = 0; });
  for (Index h = 0; h < 6; ++h)
    for (Index w = 0; w < 7; ++w)
      for (Index g = 0; g < 6; ++g) d.kernels.view()(0, h, w, 24, g) = 1;
  CpuExec exec;
  dynamic_local_conv(d.args(s), exec);
  test::expect_close(d.out.view(), d.x.cview(), [](Index) { return 0; });
}

TEST(DynamicLocalConv, DoesNotDependOnThreadsImagesOrRowsAtOnce) {
  std::mt19937 rng(3);
  for (const Shape& s : kShapes) {
    if (s.rows >= 0) continue;
    Data d(s, rng);
    CpuExec single({1}), three({3});
    Array<4> other(s.x);
    DynamicLocalConv a = d.args(s);
    dynamic_local_conv(a, single);
    a.out = other.view();
    dynamic_local_conv(a, three);
    test::expect_close(other.view(), d.out.cview(), [](Index) { return 0; });
    for (Index n = 0; n < s.x[0]; ++n)
      for (Index h = 0; h < s.x[1]; ++h)
        dynamic_local_conv(
            {d.x.cview().slice(0, n, n + 1), d.kernels.cview().slice(0, n, n + 1).slice(1, h, h + 1),
             other.view().slice(0, n, n + 1).slice(1, h, h + 1), s.kernel, h},
            single);
    test::expect_close(other.view(), d.out.cview(), [](Index) { return 0; });
  }
}

TEST(DynamicLocalConv, TakesNoImages) {
  CpuExec exec;
  dynamic_local_conv({View<const float, 4>(nullptr, {0, 5, 5, 6}),
                      View<const float, 5>(nullptr, {0, 5, 5, 9, 2}), View<float, 4>(nullptr, {0, 5, 5, 6})},
                     exec);
}

TEST(DynamicLocalConv, RefusesWhatDoesNotFit) {
  std::mt19937 rng(4);
  const Shape s{{1, 5, 6, 12}, {3, 3}, 4, 1, 3};
  Data d(s, rng);
  CpuExec exec;
  const auto sentence = [&](auto&& change) {
    DynamicLocalConv a = d.args(s);
    change(a);
    return test::refusal([&] { dynamic_local_conv(a, exec); });
  };
  EXPECT_EQ(sentence([](auto& a) {
              a.kernel = {3, 4};
            }),
            "dynamic_local_conv: kernels of 3 x 4, expected odd extents");
  EXPECT_EQ(sentence([](auto& a) {
              a.kernel = {5, 3};
            }),
            "dynamic_local_conv: kernels has shape [1, 3, 6, 9, 4], expected [1, 3, 6, 15, 4]");
  EXPECT_EQ(sentence([](auto& a) { a.x = a.x.slice(3, 0, 10); }),
            "dynamic_local_conv: 4 groups do not divide 10 channels");
  EXPECT_EQ(sentence([](auto& a) { a.out = a.out.slice(2, 0, 5); }),
            "dynamic_local_conv: out has shape [1, 3, 5, 12], expected [1, 3, 6, 12]");
  EXPECT_EQ(sentence([](auto& a) { a.first_row = 3; }),
            "dynamic_local_conv: rows [3, 6) are wanted of an image of 5");
  EXPECT_EQ(sentence([](auto& a) { a.first_row = -1; }),
            "dynamic_local_conv: rows [-1, 2) are wanted of an image of 5");
}

}  // namespace
}  // namespace ashlar
