// SPDX-License-Identifier: Apache-2.0
// Convolution to few outputs, such as an image's three: the product of each pixel of the input with the
// filters of all taps, [taps * outputs] numbers, and then the sum of those that belong to a pixel of the
// output. A tile of outputs at a time, with the products that it needs.
#include <algorithm>

#include "src/cpu/conv2d.hpp"
#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/conv2d_products.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/matmul-inl.hpp"
#include "src/cpu/conv2d_finish-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// A row of `count` pixels of the output, from column `first`. bias: with room behind. rows: the products of
// the input rows of each tap, null outside the image, [.., pitch], beginning with the pixel of the first
// column's first tap.
void conv2d_collect(const Conv2dArgs& a, Index n, Index h, Index first, Index count, const float* const* rows,
                    Index pitch, const float* bias, float* sums) {
  const Index outputs = a.weight.outputs(), kh = a.weight.kernel()[0], kw = a.weight.kernel()[1];
  const Index step = a.steps.stride[1] * pitch, dilation = a.steps.dilation[1] * pitch;
  // Four outputs at a time; what is read and written beyond the last is the next pixel's, or room behind.
#if HWY_TARGET == HWY_SCALAR
  const hn::CappedTag<float, 1> d;
#else
  const hn::FixedTag<float, 4> d;
#endif
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  for (Index w = 0; w < count; ++w)
    for (Index o = 0; o < outputs; o += lanes) {
      auto total = hn::LoadU(d, bias + o);
      for (Index r = 0; r < kh; ++r) {
        if (rows[r] == nullptr) continue;
        const float* from = rows[r] + w * step + r * kw * outputs + o;
        for (Index t = 0; t < kw; ++t) total = hn::Add(total, hn::LoadU(d, from + t * (dilation + outputs)));
      }
      hn::StoreU(total, d, sums + w * outputs + o);
    }
  finish_pixels(a, (n * a.out.shape[1] + h) * a.out.shape[2] + first, count, 0, outputs, sums, outputs);
}

// to [columns, pitch] = the products of a row's pixels from column `first`; zeros outside the image.
void conv2d_multiply_row(const Conv2dArgs& a, Index n, Index y, Index first, Index columns, Index pitch,
                         float* to) {
  const Index begin = std::clamp<Index>(-first, 0, columns),
              end = std::clamp(a.x.shape[2] - first, begin, columns);
  std::fill_n(to, begin * pitch, 0.0f);
  std::fill_n(to + end * pitch, (columns - end) * pitch, 0.0f);
  for (Index j = begin; j < end; j += kStripRows)
    multiply_rows<false>(std::min<Index>(kStripRows, end - j), a.x.at(n, y, first + j), a.x.strides[2],
                         a.weight.packed().data(), pitch, a.weight.inputs(), to + j * pitch, pitch, pitch);
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
HWY_EXPORT(conv2d_multiply_row);
}  // namespace kernels
namespace {

constexpr Index kTileRows = 16, kTileColumns = 128;  // of the output; of the input

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

}  // namespace

void conv2d_products(const Conv2dArgs& a, CpuExec& exec) {
  const Conv2dSteps& s = a.steps;
  const Index kh = a.weight.kernel()[0], kw = a.weight.kernel()[1], outputs = a.weight.outputs(),
              pitch = conv_padded(kh * kw * outputs);
  const Index images = a.out.shape[0], height = a.out.shape[1], width = a.out.shape[2];
  // What `count` outputs along an axis see.
  const auto span = [&](Index count, int axis) {
    return (count - 1) * s.stride[axis] + (a.weight.kernel()[axis] - 1) * s.dilation[axis] + 1;
  };
  const Index most = std::max<Index>(1, (kTileColumns - span(1, 1)) / s.stride[1] + 1);
  const Index across = ceil_div(width, most), down = ceil_div(height, kTileRows);
  const Index columns = ceil_div(width, across), rows = std::min(height, kTileRows);
  const Index row_size = span(columns, 1) * pitch;
  CpuScratch scratch(exec);
  const auto products = scratch.floats(exec.threads(), span(rows, 0) * row_size + 16);  // and a vector
  const auto sums = scratch.floats(exec.threads(), columns * outputs + 16);             // and a vector
  const auto bias = scratch.floats(outputs + 16);
  for (Index o = 0; o < outputs + 16; ++o) bias(o) = a.bias && o < outputs ? a.bias(o) : 0;
  const auto row_memory = scratch.get<const float*>(exec.threads(), kh);
  exec.parallel_for(images * down * across, [&](Index task, int worker) {
    const Index n = task / (down * across), top = task / across % down * kTileRows,
                left = task % across * columns;
    const Index bottom = std::min(height, top + kTileRows), count = std::min(columns, width - left);
    if (count <= 0) return;
    const Index first_row = top * s.stride[0] - s.padding[0], first = left * s.stride[1] - s.padding[1];
    for (Index i = 0; i < span(bottom - top, 0); ++i)
      if (const Index y = first_row + i; y >= 0 && y < a.x.shape[1])
        ASHLAR_DISPATCH(exec, conv2d_multiply_row)
    (a, n, y, first, span(count, 1), pitch, products.at(worker, i * row_size));
    const float** seen = row_memory.at(worker);
    for (Index h = top; h < bottom; ++h) {
      for (Index r = 0; r < kh; ++r) {
        const Index i = (h - top) * s.stride[0] + r * s.dilation[0], y = first_row + i;
        seen[r] = y >= 0 && y < a.x.shape[1] ? products.at(worker, i * row_size) : nullptr;
      }
      ASHLAR_DISPATCH(exec, conv2d_collect)(a, n, h, left, count, seen, pitch, bias.data, sums.at(worker));
    }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
