// SPDX-License-Identifier: Apache-2.0
// Convolution as a product of gathered patches with the filters, a block of pixels at a time: the patches
// stay in the second-level cache.
#include <algorithm>

#include "src/cpu/conv2d.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/gemm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/conv2d_patches.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "src/cpu/conv2d_finish-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

void conv2d_finish(const Conv2dArgs& a, Index pixel, Index count, Index first, Index columns,
                   const float* sums, Index pitch) {
  finish_pixels(a, pixel, count, first, columns, sums, pitch, a.bias ? a.bias.data + first : nullptr);
}

// to [count, taps, channels]: for each pixel of the output, from the one of that number, the input's channels
// [first, first + channels) that its filters see.
void conv2d_gather(const Conv2dArgs& a, Index pixel, Index count, Index first, Index channels, float* to) {
  const auto [kh, kw] = a.weight.kernel();
  const Conv2dSteps& s = a.steps;
  const Index rows = a.x.shape[1], columns = a.x.shape[2], step = s.dilation[1] * a.x.strides[2];
  const bool runs = step == channels;  // the taps of a row lie one behind another
  PixelCursor at(pixel, a.out.shape[1], a.out.shape[2]);
  for (Index p = 0; p < count; ++p, at.next()) {
    const Index left = at.w * s.stride[1] - s.padding[1];
    // Taps [begin, end) are inside the image.
    const Index begin = std::min(kw, left < 0 ? (-left + s.dilation[1] - 1) / s.dilation[1] : 0);
    const Index end = std::clamp((columns - left + s.dilation[1] - 1) / s.dilation[1], begin, kw);
    for (Index r = 0; r < kh; ++r, to += kw * channels) {
      const Index y = at.h * s.stride[0] - s.padding[0] + r * s.dilation[0];
      if (y < 0 || y >= rows || begin == end) {
        std::fill_n(to, kw * channels, 0.0f);
        continue;
      }
      const float* from = a.x.at(at.n, y, left + begin * s.dilation[1], first);
      if (begin > 0) std::fill_n(to, begin * channels, 0.0f);
      if (end < kw) std::fill_n(to + end * channels, (kw - end) * channels, 0.0f);
      if (runs)
        copy_row(from, (end - begin) * channels, to + begin * channels);
      else
        for (Index t = begin; t < end; ++t, from += step) copy_row(from, channels, to + t * channels);
    }
  }
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
HWY_EXPORT(conv2d_finish);
HWY_EXPORT(conv2d_gather);
}  // namespace kernels
namespace {

constexpr Index kBlockFloats = 131072;  // of patches
constexpr Index kRowUnit = 16;          // a short block is padded to a multiple of this

// Whether the patches are the pixels, one behind another.
bool gathered_already(const Conv2dArgs& a) {
  const auto& x = a.x;
  return a.weight.kernel() == std::array<Index, 2>{1, 1} && a.weight.groups() == 1 &&
         a.steps.stride == std::array<Index, 2>{1, 1} && a.steps.padding == std::array<Index, 2>{0, 0} &&
         x.packed();
}

}  // namespace

void conv2d_patches(const Conv2dArgs& a, CpuExec& exec) {
  const Index groups = a.weight.groups(), each = a.weight.inputs() / groups,
              outputs = a.weight.outputs() / groups, padded = conv_padded(outputs),
              depth = each * a.weight.kernel()[0] * a.weight.kernel()[1];
  const Index pixels = a.out.shape[0] * a.out.shape[1] * a.out.shape[2];
  const Index block = std::clamp(kBlockFloats / depth / kRowUnit * kRowUnit, Index{32}, Index{128});
  const Index blocks = (pixels + block - 1) / block, last = pixels - (blocks - 1) * block;
  const Index last_padded = (last + kRowUnit - 1) / kRowUnit * kRowUnit;
  const Index panels = (padded + kConvPanel - 1) / kConvPanel, units = groups * panels;
  const Index wide = std::min(padded, kConvPanel), narrow = padded - (panels - 1) * kConvPanel;
  const Gemm* products[2][2];  // of [the last block][the last panel]
  Index product_bytes = 0;
  for (int short_block : {0, 1})
    for (int short_panel : {0, 1}) {
      const Index rows = short_block || blocks == 1 ? last_padded : block;
      const Gemm& product = exec.gemm_cache().get(rows, depth, short_panel ? narrow : wide);
      products[short_block][short_panel] = &product;
      product_bytes = std::max(product_bytes, (product.scratch_bytes() + 63) / 64 * 64);
    }
  // Few blocks: their panels are shared out as well, each part gathering for itself.
  const Index parts = std::clamp<Index>(2 * exec.threads() / blocks, 1, exec.threads() > 1 ? units : 1);
  CpuScratch scratch(exec);
  const bool direct = gathered_already(a);
  const auto patches = scratch.floats(exec.threads(), block * depth);
  const auto sums = scratch.floats(exec.threads(), block * kConvPanel);
  const auto product_memory = scratch.get<std::byte>(exec.threads(), product_bytes);
  exec.parallel_for(blocks * parts, [&](Index task, int worker) {
    const Index index = task / parts, part = task % parts, pixel = index * block;
    const bool short_block = index == blocks - 1;
    const Index count = short_block ? last : block, rows = short_block ? last_padded : block;
    const float* rows_of_block = direct && count == rows ? a.x.data + pixel * depth : nullptr;
    Index gathered = -1;  // the group whose patches are there
    for (Index unit = units * part / parts; unit < units * (part + 1) / parts; ++unit) {
      const Index group = unit / panels, panel = unit % panels, first = panel * kConvPanel;
      const bool short_panel = panel == panels - 1;
      float* const to = patches.at(worker);
      if (!rows_of_block && gathered != group) {
        ASHLAR_DISPATCH(exec, conv2d_gather)(a, pixel, count, group * each, each, to);
        std::fill_n(to + count * depth, (rows - count) * depth, 0.0f);
        gathered = group;
      }
      const Index width = short_panel ? narrow : wide;
      products[short_block][short_panel]->multiply(
          rows_of_block ? rows_of_block : to, a.weight.packed().data() + (group * padded + first) * depth,
          sums.at(worker), product_memory.at(worker));
      ASHLAR_DISPATCH(exec, conv2d_finish)
      (a, pixel, count, group * outputs + first, std::min(kConvPanel, outputs - first), sums.at(worker),
       width);
    }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
