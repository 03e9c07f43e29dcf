// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/conv2d_weight.hpp"
#include "ashlar/ops/conv2d.hpp"

namespace ashlar {
inline namespace v0 {

// Columns of a product with gathered patches: 64 at a time, the last ones padded with zeros to a multiple of
// 16, which the library's kernels are faster with than with masks.
inline constexpr Index kConvPanel = 64, kConvColumns = 16;
inline Index conv_padded(Index columns) { return (columns + kConvColumns - 1) / kConvColumns * kConvColumns; }

// The three forms of Conv2dWeight, on checked arguments.
void conv2d_patches(const Conv2dArgs& args, CpuExec& exec);
void conv2d_products(const Conv2dArgs& args, CpuExec& exec);
void conv2d_channels(const Conv2dArgs& args, CpuExec& exec);

// One row of the output: the input rows that its taps see, null outside the image, at the first channel.
struct DepthwiseRow {
  const float* const* rows;
  const float* weights;           // [kh, kw, pitch]
  const float* bias;              // null: none
  float* out;                     // of column 0
  Index pixel, out_pixel, pitch;  // distances of pixels, and of the weights' rows
  Index columns, width, kh, kw, stride, dilation, padding;
};

// A pixel of an image by its number, and the ones behind it.
struct PixelCursor {
  PixelCursor(Index number, Index rows, Index columns)
      : n(number / (rows * columns)),
        h(number / columns % rows),
        w(number % columns),
        rows_(rows),
        columns_(columns) {}
  void next() {
    if (++w < columns_) return;
    w = 0;
    if (++h < rows_) return;
    h = 0, ++n;
  }
  Index n, h, w;

 private:
  Index rows_, columns_;
};

}  // namespace v0
}  // namespace ashlar
