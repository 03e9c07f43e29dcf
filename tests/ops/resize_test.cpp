// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/resize.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;
using Shape = std::array<Index, 4>;

struct Rule {
  ResizeMode mode;
  bool align_corners = false, antialias = false;
};
const Rule kRules[] = {
    {ResizeMode::nearest},        {ResizeMode::nearest_exact},         {ResizeMode::bilinear},
    {ResizeMode::bilinear, true}, {ResizeMode::bilinear, false, true}, {ResizeMode::bicubic},
    {ResizeMode::bicubic, true},  {ResizeMode::bicubic, false, true}};

TEST(Resize, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Shape& s : {Shape{2, 9, 7, 4}, Shape{1, 1, 1, 1}, Shape{1, 5, 13, 3}, Shape{1, 30, 2, 67}})
    for (const std::array<Index, 2>& size : {std::array<Index, 2>{19, 14}, {4, 2}, {4, 14}, {1, 1}, {37, 1}})
      for (const Rule& rule : kRules)
        for (Index padding : {0, 3}) {
          Array<4> x(s, padding);
          x.uniform(rng, -1, 1);
          const Shape out{s[0], size[0], size[1], s[3]};
          std::vector<double> values(static_cast<std::size_t>(out[0] * out[1] * out[2] * out[3]));
          const View<double, 4> want(values.data(), out);
          ref::resize<double>({x.exact(), want, rule.mode, rule.align_corners, rule.antialias});
          for (CpuExec& exec : test::contexts()) {
            Array<4> got(out, padding);
            resize({x.cview(), got.view(), rule.mode, rule.align_corners, rule.antialias}, exec);
            // Weights sum to 1, in magnitude to less than 1.6 along each axis; two roundings a term.
            test::expect_close(got.view(), want, [](Index) { return 40 * test::kEps; });
            got.expect_padding_untouched();
          }
        }
}

TEST(Resize, TakesScaleFactors) {
  std::mt19937 rng(2);
  const std::array<double, 2> factor{0.4555555555555555, 1.5857142857142856};
  Array<4> x({2, 9, 7, 4}), got({2, 4, 11, 4});
  x.uniform(rng, -1, 1);
  ASSERT_EQ(resized_extent(9, factor[0]), 4);
  ASSERT_EQ(resized_extent(7, factor[1]), 11);
  std::vector<double> values(2 * 4 * 11 * 4);
  const View<double, 4> want(values.data(), {2, 4, 11, 4});
  CpuExec exec;
  for (const Rule& rule : kRules) {
    ref::resize<double>({x.exact(), want, rule.mode, rule.align_corners, rule.antialias, factor});
    resize({x.cview(), got.view(), rule.mode, rule.align_corners, rule.antialias, factor}, exec);
    test::expect_close(got.view(), want, [](Index) { return 40 * test::kEps; });
  }
}

TEST(Resize, ToTheSameSizeChangesNothingAndKeepsConstants) {
  std::mt19937 rng(3);
  Array<4> x({1, 6, 5, 3}), same({1, 6, 5, 3}), constant({1, 6, 5, 3}), other({1, 13, 2, 3});
  x.uniform(rng, -1, 1);
  constant.each([](float& e) { e = 0.7f; });
  CpuExec exec;
  for (const Rule& rule : kRules) {
    resize({x.cview(), same.view(), rule.mode, rule.align_corners, rule.antialias}, exec);
    test::expect_close(same.view(), x.cview(), [](Index) { return 0; });
    resize({constant.cview(), other.view(), rule.mode, rule.align_corners, rule.antialias}, exec);
    other.each([](float& e) { ASSERT_NEAR(e, 0.7, 8 * test::kEps); });
  }
}

TEST(Resize, DoesNotDependOnThreadsNorOtherImages) {
  std::mt19937 rng(4);
  Array<4> x({2, 40, 33, 5}), one({2, 90, 70, 5}), many({2, 90, 70, 5});
  x.uniform(rng, -1, 1);
  CpuExec single({1}), three({3});
  for (const Rule& rule : kRules) {
    Resize args{x.cview(), one.view(), rule.mode, rule.align_corners, rule.antialias};
    resize(args, single);
    args.out = many.view();
    resize(args, three);
    test::expect_close(many.view(), one.cview(), [](Index) { return 0; });
    args.x = x.cview().slice(0, 1, 2), args.out = many.view().slice(0, 1, 2);
    resize(args, single);
    test::expect_close(many.view(), one.cview(), [](Index) { return 0; });
  }
}

TEST(Resize, RefusesWhatDoesNotFit) {
  Array<4> x({1, 4, 6, 2}), out({1, 2, 3, 2}), other({1, 2, 3, 1});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              resize({x.cview(), other.view()}, exec);
            }),
            "resize: out has shape [1, 2, 3, 1], expected [1, 2, 3, 2]");
  EXPECT_EQ(test::refusal([&] {
              resize({x.cview(), out.view(), ResizeMode::nearest, false, true}, exec);
            }),
            "resize: antialias was asked for with a nearest mode, expected bilinear or bicubic without "
            "align_corners");
  EXPECT_EQ(test::refusal([&] {
              resize({x.cview().slice(1, 0, 0), out.view()}, exec);
            }),
            "resize: x has shape [1, 0, 6, 2], expected an image of at least one pixel");
  EXPECT_EQ(test::refusal([&] {
              resize({x.cview(), out.view(), ResizeMode::bilinear, false, false, {-1, 0}}, exec);
            }),
            "resize: a scale factor is -1.000000, expected a positive number, or 0 for none");
}

}  // namespace
}  // namespace ashlar
