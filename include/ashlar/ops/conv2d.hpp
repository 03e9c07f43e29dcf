// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

class Conv2dWeight;  // core/conv2d_weight.hpp

// Of the two axes, rows first. Padding is with zeros, on both sides.
struct Conv2dSteps {
  std::array<Index, 2> stride{1, 1}, padding{0, 0}, dilation{1, 1};
};

// The number of outputs along an axis: floor((in + 2 padding - dilation (kernel - 1) - 1) / stride) + 1.
inline Index conv2d_extent(Index in, Index kernel, Index stride = 1, Index padding = 0, Index dilation = 1) {
  const Index room = in + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

// The 2-D convolution of deep learning (a cross-correlation: the kernel is not flipped), per group of
// channels:
//   y[n, h, w, o] = bias[o] + sum over i, r, s of W[o, i, r, s] x[n, h stride - padding + r dilation,
//                                                                   w stride - padding + s dilation, q I + i]
//   out = activation(y) + residual
// with I = inputs / groups, q = o / (outputs / groups), and zeros outside the image. groups = inputs is the
// depthwise convolution; then output o reads input o / (outputs / inputs). Accumulated in f32; a pixel's bits
// depend on neither threads nor other images. Images may be slices of wider ones: pixels, rows and images may
// have any strides. Refused: shapes that differ, an image smaller than the kernel. `out` may be `residual`
// and must not overlap `x`. Backward needs x, the filters and, for the activation, y.
struct Conv2dArgs {
  View<const float, 4> x;      // [N, H, W, inputs]
  const Conv2dWeight& weight;  // [outputs, inputs / groups, kh, kw]
  View<const float, 1> bias;   // [outputs]; empty: none
  View<float, 4> out;          // [N, H', W', outputs], H' = conv2d_extent(H, kh, ...)
  Conv2dSteps steps;
  Activation activation = Activation::identity;
  float negative_slope = kNegativeSlope;  // of leaky_relu
  View<const float, 4> residual;          // as out; empty: none
};

void conv2d(const Conv2dArgs& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
