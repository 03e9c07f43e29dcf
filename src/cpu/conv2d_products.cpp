// SPDX-License-Identifier: Apache-2.0
// Convolution to few outputs, such as an image's three: the product of each pixel of the input with the
// filters of all taps, [taps * outputs] numbers, and then the sum of those that belong to a pixel of the
// output. A tile of outputs at a time, with the products that it needs.
#include <algorithm>

#include "src/cpu/conv2d.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/gemm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/conv2d_products.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "src/cpu/conv2d_finish-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// A row of `count` pixels of the output, from column `first`. rows: the products of the input rows of each
// tap, null outside the image, [.., pitch], beginning with the pixel of the first column's first tap.
void conv2d_collect(const Conv2dArgs& a, Index n, Index h, Index first, Index count, const float* const* rows,
                    Index pitch, float* sums) {
  const Index outputs = a.weight.outputs(), kh = a.weight.kernel()[0], kw = a.weight.kernel()[1];
  const Index step = a.steps.stride[1] * pitch, dilation = a.steps.dilation[1] * pitch;
  for (Index w = 0; w < count; ++w)
    for (Index o = 0; o < outputs; ++o) {
      float total = a.bias ? a.bias(o) : 0.0f;
      for (Index r = 0; r < kh; ++r) {
        if (rows[r] == nullptr) continue;
        const float* from = rows[r] + w * step + r * kw * outputs + o;
        for (Index t = 0; t < kw; ++t) total += from[t * (dilation + outputs)];
      }
      sums[w * outputs + o] = total;
    }
  finish_pixels(a, (n * a.out.shape[1] + h) * a.out.shape[2] + first, count, 0, outputs, sums, outputs,
                nullptr);
}

// to [columns, channels] = the pixels of a row from column `first`, which may be outside: zeros there.
void conv2d_copy_row(const Conv2dArgs& a, Index n, Index y, Index first, Index columns, float* to) {
  const Index channels = a.weight.inputs();
  for (Index j = first; j < first + columns; ++j, to += channels)
    if (j < 0 || j >= a.x.shape[2])
      std::fill_n(to, channels, 0.0f);
    else
      copy_row(a.x.at(n, y, j), channels, to);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(conv2d_collect);
HWY_EXPORT(conv2d_copy_row);
}  // namespace kernels
namespace {

constexpr Index kTileRows = 16, kTileColumns = 128;  // of the output; of the input
constexpr Index kRowUnit = 16;

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

}  // namespace

void conv2d_products(const Conv2dArgs& a, CpuExec& exec) {
  const Conv2dSteps& s = a.steps;
  const Index kh = a.weight.kernel()[0], kw = a.weight.kernel()[1], outputs = a.weight.outputs(),
              channels = a.weight.inputs(), pitch = conv_padded(kh * kw * outputs);
  const Index images = a.out.shape[0], height = a.out.shape[1], width = a.out.shape[2];
  // Input columns that `columns` of the output see.
  const auto span = [&](Index columns, int axis, Index kernel) {
    return (columns - 1) * s.stride[axis] + (kernel - 1) * s.dilation[axis] + 1;
  };
  const Index most = std::max<Index>(1, (kTileColumns - span(1, 1, kw)) / s.stride[1] + 1);
  const Index across = ceil_div(width, most), down = ceil_div(height, kTileRows);
  const Index columns = ceil_div(width, across);
  const Index seen = ceil_div(span(columns, 1, kw), kRowUnit) * kRowUnit, seen_rows = span(kTileRows, 0, kh);
  const Gemm& product = exec.gemm_cache().get(seen, channels, pitch);
  CpuScratch scratch(exec);
  const auto pixels = scratch.floats(exec.threads(), seen * channels);
  const auto products = scratch.floats(exec.threads(), seen_rows * seen * pitch);
  const auto sums = scratch.floats(exec.threads(), columns * outputs);
  const auto row_memory = scratch.get<const float*>(exec.threads(), kh);
  const auto product_memory =
      scratch.get<std::byte>(exec.threads(), (product.scratch_bytes() + 63) / 64 * 64);
  exec.parallel_for(images * down * across, [&](Index task, int worker) {
    const Index n = task / (down * across), top = task / across % down * kTileRows,
                left = task % across * columns;
    const Index bottom = std::min(height, top + kTileRows), count = std::min(width - left, columns);
    const Index first_row = top * s.stride[0] - s.padding[0], first = left * s.stride[1] - s.padding[1];
    const bool inside = first >= 0 && first + seen <= a.x.shape[2] && a.x.strides[2] == channels;
    const auto inside_rows = [&](Index y) { return y >= 0 && y < a.x.shape[1]; };
    for (Index i = 0; i < span(bottom - top, 0, kh); ++i) {
      const Index y = first_row + i;
      if (!inside_rows(y)) continue;
      if (!inside) ASHLAR_DISPATCH(exec, conv2d_copy_row)(a, n, y, first, seen, pixels.at(worker));
      product.multiply(inside ? a.x.at(n, y, first) : pixels.at(worker), a.weight.packed().data(),
                       products.at(worker, i * seen * pitch), product_memory.at(worker));
    }
    const float** rows = row_memory.at(worker);
    for (Index h = top; h < bottom; ++h) {
      for (Index r = 0; r < kh; ++r) {
        const Index i = (h - top) * s.stride[0] + r * s.dilation[0];
        rows[r] = inside_rows(first_row + i) ? products.at(worker, i * seen * pitch) : nullptr;
      }
      ASHLAR_DISPATCH(exec, conv2d_collect)(a, n, h, left, count, rows, pitch, sums.at(worker));
    }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
