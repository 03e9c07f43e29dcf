// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <vector>

#include "ashlar/nn/conv2d.hpp"
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/tokens.hpp"
#include "ashlar/ops/dynamic_local_conv.hpp"

namespace ashlar {
inline namespace v0 {

struct DynamicLocalAttentionConfig {
  Index dim = 0;
  Index kernel = 7;       // odd
  Index group_width = 0;  // channels that share a kernel: "idynamic_num_heads"
  Index reduced = 0;      // channels inside the generator
  bool dynamic = true;    // false: a depthwise convolution, "idynamic"
};

// Multi-head dynamic local self-attention, MHDLSA (DLGSANet: Li et al., 2023): a kernel for each pixel and
// group of channels, made of the pixel's neighbourhood, without a softmax:
//   y = conv0 x;  K = conv2 depthwise(conv1 y);  out = conv1 dynamic_local_conv(y, K)
// conv0, conv1 and the generator's first and last convolution are 1 x 1. K, which has kernel^2 dim /
// group_width channels, is made for a few rows at a time.
template <class Exec>
class DynamicLocalAttention {
 public:
  DynamicLocalAttention(const ParameterReader<Exec>& r, const DynamicLocalAttentionConfig& c)
      : c_(c),
        taps_(c.kernel * c.kernel),
        in_(r, "conv0", c.dim, c.dim, Conv2dOptions::same(1).unbiased()),
        out_(r, "conv1", c.dim, c.dim, Conv2dOptions::same(1).unbiased()) {
    if (c.kernel % 2 == 0) refuse("DynamicLocalAttention", "a kernel of ", c.kernel, ", expected an odd one");
    if (!c.dynamic) {
      plain_ = Conv2d<Exec>(r, "conv", c.dim, c.dim, Conv2dOptions::same(c.kernel).grouped(c.dim));
      return;
    }
    if (c.group_width < 1 || c.dim % c.group_width != 0)
      refuse("DynamicLocalAttention", "groups of ", c.group_width, " channels do not divide ", c.dim);
    groups_ = c.dim / c.group_width;
    reduce_ = Conv2d<Exec>(r, "conv.conv1.0", c.dim, c.reduced, Conv2dOptions::same(1));
    spread_ = Conv2d<Exec>(r, "conv.conv1.1", c.reduced, c.reduced,
                           Conv2dOptions::same(c.kernel).grouped(c.reduced));
    // Theirs has the taps of a group beside each other, dynamic_local_conv the groups of a tap.
    std::vector<Index> order;
    for (Index tap = 0; tap < taps_; ++tap)
      for (Index g = 0; g < groups_; ++g) order.push_back(g * taps_ + tap);
    const Index kernels = taps_ * groups_;
    const Parameter weight = r.tensor("conv.conv2.0.weight", {kernels, c.reduced, 1, 1}),
                    bias = r.tensor("conv.conv2.0.bias", {kernels});
    kernels_ =
        Linear<Exec>(r, take(weight, order), c.reduced, kernels, r.vector(to_floats(take(bias, order))));
  }

  // Scratch memory, for each pixel, without the kernels of a few rows.
  Index floats_per_pixel() const { return 2 * c_.dim + 2 * c_.reduced; }

  // x, out, residual [N, H, W, C]; the residual is added, and `out` may be `x` or it.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec,
                  View<const float, 4> residual = {}) const {
    typename Exec::Scratch scratch(exec);
    const auto [images, height, width, channels] = x.shape;
    const auto y = scratch.floats(images, height, width, channels),
               o = scratch.floats(images, height, width, channels);
    in_(x, y, exec);
    if (!c_.dynamic) {
      plain_(y, o, exec);
      return out_(o, out, exec, residual);
    }
    const auto e = features(y, scratch, exec);
    const Index rows =
        std::clamp<Index>(kKernelFloats / std::max<Index>(1, width * taps_ * groups_), 1, height);
    const auto kernels = scratch.floats(rows * width * taps_ * groups_);
    for (Index n = 0; n < images; ++n)
      for (Index first = 0; first < height; first += rows) {
        const Index end = std::min(height, first + rows);
        const View<float, 5> k(kernels.data, {1, end - first, width, taps_, groups_});
        const auto part = [&](const View<float, 4>& map) {
          return map.slice(0, n, n + 1).slice(1, first, end);
        };
        make(part(e), k, exec);
        dynamic_local_conv(DynamicLocalConv{.x = y.slice(0, n, n + 1),
                                            .kernels = k,
                                            .out = part(o),
                                            .kernel = {c_.kernel, c_.kernel},
                                            .first_row = first},
                           exec);
      }
    out_(o, out, exec, residual);
  }

  // All of K for x, [N, H, W, kernel^2, groups].
  void kernels(View<const float, 4> x, View<float, 5> to, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto y = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    in_(x, y, exec);
    make(features(y, scratch, exec), to, exec);
  }
  Index groups() const { return groups_; }

 private:
  static constexpr Index kKernelFloats = Index{1} << 18;  // that are made at a time

  View<float, 4> features(View<const float, 4> y, typename Exec::Scratch& scratch, Exec& exec) const {
    const auto a = scratch.floats(y.shape[0], y.shape[1], y.shape[2], c_.reduced),
               b = scratch.floats(y.shape[0], y.shape[1], y.shape[2], c_.reduced);
    reduce_(y, a, exec);
    spread_(a, b, exec);
    return b;
  }
  void make(View<const float, 4> e, View<float, 5> kernels, Exec& exec) const {
    const View<const float, 2> pixels = as_tokens(e);
    kernels_(pixels, {kernels.data, {pixels.shape[0], taps_ * groups_}}, Phase::prefill, exec);
  }

  DynamicLocalAttentionConfig c_;
  Index taps_, groups_ = 0;
  Conv2d<Exec> in_, out_, plain_, reduce_, spread_;
  Linear<Exec> kernels_;
};

}  // namespace v0
}  // namespace ashlar
