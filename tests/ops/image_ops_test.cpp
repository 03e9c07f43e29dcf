// SPDX-License-Identifier: Apache-2.0
// Rearrangements, pools, norms and gates of images.
#include "ashlar/ref/map_norm.hpp"
#include "ashlar/ref/pad2d.hpp"
#include "ashlar/ref/pixel_shuffle.hpp"
#include "ashlar/ref/pool2d.hpp"
#include "ashlar/ref/scale_channels.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;
using Shape = std::array<Index, 4>;

// An output of the equation, in double.
struct Want {
  explicit Want(const Shape& s) : shape(s), values(static_cast<std::size_t>(s[0] * s[1] * s[2] * s[3])) {}
  View<double, 4> view() { return {values.data(), shape}; }
  Shape shape;
  std::vector<double> values;
};

// run(exec, x, out) in every context against want, within bound(i); with pixels packed and apart, one thread
// as many, an image as among others.
template <class Run, class Bound>
void expect_op(const Array<4>& x, const Shape& out, const View<double, 4>& want, Run&& run, Bound&& bound) {
  Array<4> input = x, got(out), packed(out, 0), again(out);
  const auto each = [&](CpuExec& exec, Array<4>& to) {
    run(exec, input.cview(), to.poison().view());
    test::expect_close(to.view(), want, bound);
    to.expect_padding_untouched();
  };
  for (CpuExec& exec : test::contexts()) each(exec, got), each(exec, packed);
  CpuExec single({1}), three({3});
  each(single, got), each(three, again);
  test::expect_close(again.view(), got.cview(), [](Index) { return 0; });
}

Array<4> image(const Shape& shape, std::mt19937& rng, Index padding = 3) {
  return Array<4>(shape, padding).uniform(rng, -1, 1);
}

constexpr auto kExact = [](Index) { return 0.0; };

TEST(Pad2d, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Shape& s : {Shape{1, 1, 1, 1}, Shape{2, 5, 7, 3}, Shape{1, 63, 4, 67}, Shape{3, 4, 130, 1}})
    for (PadMode mode : {PadMode::zero, PadMode::reflect, PadMode::symmetric})
      for (std::array<Index, 4> sides :
           {std::array<Index, 4>{0, 0, 0, 0}, {0, 3, 0, 1}, {2, 1, 3, 3}, {1, 1, 1, 1}}) {
        const Index most = mode == PadMode::reflect ? std::min(s[1], s[2]) - 1 : std::min(s[1], s[2]);
        for (Index& side : sides)
          if (mode != PadMode::zero) side = std::min(side, most);
        Array<4> x = image(s, rng, sides[0] == 2 ? 0 : 3);
        const Shape out{s[0], s[1] + sides[0] + sides[1], s[2] + sides[2] + sides[3], s[3]};
        Want want(out);
        ref::pad2d<double>({x.exact(), want.view(), mode, {sides[0], sides[2]}});
        expect_op(
            x, out, want.view(),
            [&](CpuExec& exec, View<const float, 4> in, View<float, 4> to) {
              pad2d({in, to, mode, {sides[0], sides[2]}}, exec);
            },
            kExact);
      }
}

TEST(Pad2d, RefusesWhatDoesNotFit) {
  std::mt19937 rng(2);
  Array<4> x = image({1, 4, 6, 2}, rng), out({1, 8, 6, 2});
  CpuExec exec;
  const auto sentence = [&](PadMode mode, Index before) {
    return test::refusal([&] { pad2d({x.cview(), out.view(), mode, {before, 0}}, exec); });
  };
  EXPECT_EQ(sentence(PadMode::reflect, 0), "pad2d: reflect padding by 4 of a side of 4, expected at most 3");
  EXPECT_EQ(sentence(PadMode::zero, 5), "pad2d: out's side of 8 does not hold x's of 4 behind 5 pixels");
  EXPECT_EQ(test::refusal([&] {
              pad2d({x.cview(), out.view().slice(3, 0, 1), PadMode::zero}, exec);
            }),
            "pad2d: out has shape [1, 8, 6, 1], expected [1, 8, 6, 2]");
}

TEST(PixelShuffle, MatchesTheEquationAndIsUndone) {
  std::mt19937 rng(3);
  for (Index r : {1, 2, 3, 4})
    for (const Shape& fine : {Shape{1, r, r, 1}, Shape{2, 3 * r, 5 * r, 3}, Shape{1, 2 * r, r, 67}})
      for (BlockOrder order : {BlockOrder::channel_first, BlockOrder::pixel_first}) {
        const Shape wide{fine[0], fine[1] / r, fine[2] / r, fine[3] * r * r};
        Array<4> x = image(wide, rng), y = image(fine, rng);
        Want shuffled(fine), unshuffled(wide);
        ref::pixel_shuffle<double>({x.exact(), shuffled.view(), order});
        ref::pixel_unshuffle<double>({y.exact(), unshuffled.view(), order});
        expect_op(
            x, fine, shuffled.view(),
            [&](CpuExec& e, View<const float, 4> in, View<float, 4> out) {
              pixel_shuffle({in, out, order}, e);
            },
            kExact);
        expect_op(
            y, wide, unshuffled.view(),
            [&](CpuExec& e, View<const float, 4> in, View<float, 4> out) {
              pixel_unshuffle({in, out, order}, e);
            },
            kExact);
        CpuExec exec;
        Array<4> there(fine), back(wide);
        pixel_shuffle({x.cview(), there.view(), order}, exec);
        pixel_unshuffle({there.cview(), back.view(), order}, exec);
        test::expect_close(back.view(), x.cview(), kExact);
      }
}

TEST(PixelShuffle, RefusesWhatIsNoShuffle) {
  std::mt19937 rng(4);
  Array<4> x = image({1, 2, 3, 8}, rng), out({1, 4, 7, 2}), three({1, 6, 9, 1});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              pixel_shuffle({x.cview(), out.view()}, exec);
            }),
            "pixel_shuffle: out has shape [1, 4, 7, 2], which is no shuffle of x's [1, 2, 3, 8]");
  EXPECT_EQ(test::refusal([&] {
              pixel_shuffle({x.cview(), three.view()}, exec);
            }),
            "pixel_shuffle: out has shape [1, 6, 9, 1], which is no shuffle of x's [1, 2, 3, 8]");
  EXPECT_EQ(test::refusal([&] {
              pixel_unshuffle({x.cview(), out.view()}, exec);
            }),
            "pixel_unshuffle: x has shape [1, 2, 3, 8], which is no shuffle of out's [1, 4, 7, 2]");
  EXPECT_EQ(test::refusal([&] {
              channel_shuffle({x.cview(), x.view(), 3}, exec);
            }),
            "channel_shuffle: 3 groups do not divide the 8 channels");
}

TEST(ChannelShuffle, MatchesTheEquation) {
  std::mt19937 rng(5);
  for (Index groups : {1, 2, 6}) {
    const Shape s{2, 3, 5, 12};
    Array<4> x = image(s, rng);
    Want want(s);
    ref::channel_shuffle<double>({x.exact(), want.view(), groups});
    expect_op(
        x, s, want.view(),
        [&](CpuExec& e, View<const float, 4> in, View<float, 4> out) {
          channel_shuffle({in, out, groups}, e);
        },
        kExact);
  }
}

TEST(Pool2d, MatchesTheEquation) {
  std::mt19937 rng(6);
  const Pool2dWindow windows[] = {{{2, 2}, {2, 2}},
                                  {{2, 2}, {2, 2}, {0, 0}, true},
                                  {{2, 2}, {2, 2}, {0, 0}, true, true},
                                  {{3, 3}, {1, 1}, {1, 1}},
                                  {{3, 3}, {1, 1}, {1, 1}, false, true},
                                  {{3, 2}, {2, 3}, {1, 1}, true, true},
                                  {{1, 1}, {2, 2}},
                                  {{4, 1}, {4, 1}}};
  for (const Shape& s : {Shape{2, 9, 7, 4}, Shape{1, 4, 1, 67}, Shape{1, 30, 13, 130}})
    for (const Pool2dWindow& w : windows)
      for (PoolMode mode : {PoolMode::average, PoolMode::max}) {
        const auto extent = [&](int axis) {
          return pool2d_extent(s[1 + axis], w.kernel[axis], w.stride[axis], w.padding[axis], w.ceil_mode);
        };
        const Shape out{s[0], extent(0), extent(1), s[3]};
        if (out[1] == 0 || out[2] == 0) continue;
        Array<4> x = image(s, rng);
        Want want(out);
        ref::pool2d<double>({x.exact(), want.view(), mode, w});
        // A sum of n terms of at most 1, divided by n.
        const double bound = static_cast<double>(w.kernel[0] * w.kernel[1] + 3) * test::kEps;
        expect_op(
            x, out, want.view(),
            [&](CpuExec& e, View<const float, 4> in, View<float, 4> to) {
              pool2d({in, to, mode, w}, e);
            },
            [&](Index) { return mode == PoolMode::max ? 0 : bound; });
      }
}

TEST(Pool2d, AdaptiveMatchesTheEquation) {
  std::mt19937 rng(7);
  for (const Shape& s : {Shape{2, 9, 7, 4}, Shape{1, 1, 1, 1}, Shape{3, 63, 30, 67}})
    for (const std::array<Index, 2>& size : {std::array<Index, 2>{1, 1}, {4, 3}, {1, 5}, {9, 7}, {11, 2}})
      for (PoolMode mode : {PoolMode::average, PoolMode::max}) {
        const Shape out{s[0], size[0], size[1], s[3]};
        Array<4> x = image(s, rng);
        Want want(out);
        ref::adaptive_pool2d<double>({x.exact(), want.view(), mode});
        const double bound = static_cast<double>(s[1] * s[2] + 3) * test::kEps;
        expect_op(
            x, out, want.view(),
            [&](CpuExec& e, View<const float, 4> in, View<float, 4> to) {
              adaptive_pool2d({in, to, mode}, e);
            },
            [&](Index) { return mode == PoolMode::max ? 0 : bound; });
      }
}

TEST(Pool2d, RefusesWhatDoesNotFit) {
  std::mt19937 rng(8);
  Array<4> x = image({1, 4, 6, 2}, rng), out({1, 2, 3, 2});
  CpuExec exec;
  EXPECT_EQ(
      test::refusal([&] {
        pool2d({x.cview(), out.view(), PoolMode::max, {{3, 3}, {2, 2}, {2, 2}}}, exec);
      }),
      "pool2d: kernel 3, stride 2 and padding 2, expected at least 1, 1 and 0, and a padding of at most "
      "half the kernel");
  EXPECT_EQ(test::refusal([&] {
              pool2d({x.cview(), out.view(), PoolMode::max, {{3, 3}, {1, 1}}}, exec);
            }),
            "pool2d: out has shape [1, 2, 3, 2], expected [1, 2, 4, 2]");
  EXPECT_EQ(test::refusal([&] {
              adaptive_pool2d({x.cview().slice(1, 0, 0), out.view()}, exec);
            }),
            "adaptive_pool2d: x has shape [1, 0, 6, 2], expected an image of at least one pixel");
}

// torch's rule for windows that begin in the padding behind the image.
TEST(Pool2d, LeavesOutWindowsBeyondTheImage) {
  EXPECT_EQ(pool2d_extent(9, 2, 2, 0, false), 4);
  EXPECT_EQ(pool2d_extent(9, 2, 2, 0, true), 5);
  EXPECT_EQ(pool2d_extent(7, 3, 2, 1, true), 4);
  EXPECT_EQ(pool2d_extent(5, 1, 3, 0, true), 2);
  EXPECT_EQ(pool2d_extent(4, 2, 3, 1, true), 2);  // a third would begin at 5, in the padding
  EXPECT_EQ(pool2d_extent(1, 2, 2, 0, false), 0);
}

const Shape kMaps[] = {{1, 1, 1, 1}, {2, 7, 5, 8}, {3, 9, 2, 67}, {1, 63, 7, 130}};

TEST(MapNorm, AffineMatchesTheEquation) {
  std::mt19937 rng(9);
  for (const Shape& s : kMaps)
    for (Activation f : {Activation::identity, Activation::leaky_relu, Activation::hardswish}) {
      Array<4> x = image(s, rng);
      Array<1> scale({s[3]}), shift({s[3]});
      scale.uniform(rng, -2, 2), shift.uniform(rng, -2, 2);
      for (bool shifted : {true, false}) {
        Want want(s);
        ChannelAffineArgs<double> equation{x.exact(), scale.exact(), {}, want.view(), f, 0.2};
        if (shifted) equation.shift = shift.exact();
        ref::channel_affine(equation);
        expect_op(
            x, s, want.view(),
            [&](CpuExec& e, View<const float, 4> in, View<float, 4> out) {
              channel_affine(
                  {in, scale.cview(), shifted ? shift.cview() : View<const float, 1>(), out, f, 0.2f}, e);
            },
            [](Index) { return 16 * test::kEps; });
      }
    }
}

TEST(MapNorm, GroupNormMatchesTheEquation) {
  std::mt19937 rng(10);
  for (const Shape& s : kMaps)
    for (Index groups : {Index{1}, s[3] % 2 == 0 ? Index{2} : s[3]}) {
      Array<4> x = image(s, rng);
      Array<1> weight({s[3]}), bias({s[3]});
      weight.uniform(rng, -1, 1), bias.uniform(rng, -1, 1);
      Want want(s);
      ref::group_norm2d<double>({x.exact(), weight.exact(), bias.exact(), want.view(), groups, 1e-5});
      expect_op(
          x, s, want.view(),
          [&](CpuExec& e, View<const float, 4> in, View<float, 4> out) {
            group_norm2d({in, weight.cview(), bias.cview(), out, groups}, e);
          },
          // The mean of n values is right within n eps; a group of few that lie close is divided by little.
          [&](Index) { return static_cast<double>(s[1] * s[2] + 30) * 4 * test::kEps; });
    }
}

TEST(MapNorm, GlobalResponseMatchesTheEquation) {
  std::mt19937 rng(11);
  for (const Shape& s : kMaps) {
    Array<4> x = image(s, rng);
    Array<1> weight({s[3]}), bias({s[3]});
    weight.uniform(rng, -1, 1), bias.uniform(rng, -1, 1);
    Want want(s);
    ref::global_response_norm<double>({x.exact(), weight.exact(), bias.exact(), want.view()});
    expect_op(
        x, s, want.view(),
        [&](CpuExec& e, View<const float, 4> in, View<float, 4> out) {
          global_response_norm({in, weight.cview(), bias.cview(), out}, e);
        },
        [&](Index) { return static_cast<double>(s[1] * s[2] + 30) * 4 * test::kEps; });
  }
}

TEST(ScaleChannels, MatchesTheEquation) {
  std::mt19937 rng(12);
  for (const Shape& s : kMaps)
    for (bool add : {true, false}) {
      Array<4> x = image(s, rng), more = image(s, rng);
      Array<2> gate({s[0], s[3]}), slopes({s[0], 2 * s[3]});
      gate.uniform(rng, -1, 1), slopes.uniform(rng, -1, 1);
      Want want(s), bent(s);
      ScaleChannelsArgs<double> equation{x.exact(), gate.exact(), want.view(), 0.01};
      if (add) equation.add = more.exact();
      ref::scale_channels(equation);
      expect_op(
          x, s, want.view(),
          [&](CpuExec& e, View<const float, 4> in, View<float, 4> out) {
            scale_channels({in, gate.cview(), out, 0.01f, add ? more.cview() : View<const float, 4>()}, e);
          },
          [](Index) { return 3 * test::kEps; });
      ref::dynamic_relu<double>({x.exact(), slopes.exact(), bent.view()});
      expect_op(
          x, s, bent.view(),
          [&](CpuExec& e, View<const float, 4> in, View<float, 4> out) {
            dynamic_relu({in, slopes.cview(), out}, e);
          },
          [](Index) { return test::kEps; });
    }
}

TEST(MapNorm, RefusesWhatDoesNotFit) {
  std::mt19937 rng(13);
  Array<4> x = image({1, 4, 6, 6}, rng), out({1, 4, 6, 6});
  Array<1> five({5}), six({6});
  Array<2> gates({1, 5}), two({2, 6});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              channel_affine({x.cview(), five.cview(), {}, out.view()}, exec);
            }),
            "channel_affine: scale has shape [5], expected [6]");
  EXPECT_EQ(test::refusal([&] {
              group_norm2d({x.cview(), {}, {}, out.view(), 4}, exec);
            }),
            "group_norm2d: 4 groups do not divide the 6 channels");
  EXPECT_EQ(test::refusal([&] {
              global_response_norm({x.cview(), six.cview(), five.cview(), out.view()}, exec);
            }),
            "global_response_norm: bias has shape [5], expected [6]");
  EXPECT_EQ(test::refusal([&] {
              scale_channels({x.cview(), gates.cview(), out.view()}, exec);
            }),
            "scale_channels: gate has shape [1, 5], expected [1, 6]");
  EXPECT_EQ(test::refusal([&] {
              dynamic_relu({x.cview(), two.cview(), out.view()}, exec);
            }),
            "dynamic_relu: slopes has shape [2, 6], expected [1, 12]");
}

}  // namespace
}  // namespace ashlar
