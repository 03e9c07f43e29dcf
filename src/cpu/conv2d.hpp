// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/conv2d_weight.hpp"
#include "ashlar/ops/conv2d.hpp"

namespace ashlar {
inline namespace v0 {

// Outputs of a panel of filters; the last panel is padded with zeros to a multiple of kConvColumns, so that
// it is whole vectors of every instruction set.
inline constexpr Index kConvPanel = 64, kConvColumns = 16;
inline Index conv_padded(Index columns) { return (columns + kConvColumns - 1) / kConvColumns * kConvColumns; }

// The three forms of Conv2dWeight, on checked arguments; conv2d_dense is for where the library is not asked
// (conv2d_library.hpp).
void conv2d_dense(const Conv2dArgs& args, CpuExec& exec);
void conv2d_products(const Conv2dArgs& args, CpuExec& exec);
void conv2d_channels(const Conv2dArgs& args, CpuExec& exec);

// A tile of the output, and a panel of filters for it.
struct ConvTile {
  const float* x;                     // the first channel of the group that the first output's first tap sees
  Index pixel, row;                   // from one output to the next, and to the next row
  Index tap, tap_row;                 // from one tap to the next, and to the next row of taps
  Index kh, runs, run;                // taps: rows, runs of inputs in each, inputs of a run
  Index n, top, left, rows, columns;  // of the output
  const float* weights;               // [kh * runs * run, width]
  const float* bias;                  // [width]
  Index width, filled, first;         // outputs of the panel, those that are none of its padding, the first
};

// Some rows of the output of a depthwise convolution.
struct DepthwiseBand {
  const float* const* rows;  // the input's that they see, null outside the image
  const float* weights;      // [kh, kw, channels]
  const float* bias;         // null: none
  float* sums;  // [height, a run of pixels, channels], and a vector; null: straight to the output
  Index n, top, height;
  Index pixel;  // from one pixel of the input rows to the next
};

}  // namespace v0
}  // namespace ashlar
