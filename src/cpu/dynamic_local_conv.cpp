// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/dynamic_local_conv.hpp"

#include <algorithm>

#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/dynamic_local_conv.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

#ifndef ASHLAR_CPU_DYNAMIC_LOCAL_CONV_ONCE_
#define ASHLAR_CPU_DYNAMIC_LOCAL_CONV_ONCE_
namespace ashlar {
inline namespace v0 {
namespace kernels {

// The group of each channel; behind the last channel its group again, for a whole vector.
using GroupOfChannel = const std::int32_t*;

// The taps of one pixel that lie inside the image.
struct LocalTaps {
  const float *kernel, *x;  // of the first one
  Index rows, columns;
  Index kernel_row, kernel_step, x_row, x_step;  // from a tap to the next
};

}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
#endif

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Loads of the first n elements, or of a whole vector where there are more, with the mask made once.
struct PartLoad {
  explicit HWY_INLINE PartLoad(Index elements)
      : n(elements),
        mask(hn::FirstN(FloatTag(),
                        static_cast<std::size_t>(std::min(elements, static_cast<Index>(HWY_LANES(float)))))) {
  }
  HWY_INLINE FloatVec operator()(const float* p) const {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
    return hn::MaskedLoad(mask, FloatTag(), p);
#else
    return load_some(FloatTag(), p, n);
#endif
  }
  Index n;
  hn::Mask<FloatTag> mask;
};

// kVectors vectors of channels from `first` on, the last one perhaps with fewer. A tap's values for the
// groups of a vector are one load, spread over the lanes; with kShared all groups are, for every vector.
template <int kVectors, bool kShared>
HWY_INLINE void local_channels(const LocalTaps& taps, GroupOfChannel group, Index first, Index channels,
                               Index groups, float* out) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  FloatVec sums[kVectors];
  decltype(hn::IndicesFromVec(d, hn::Zero(di))) lane[kVectors];
  Index from[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const std::int32_t* g = group + first + v * kLanes;
    from[v] = kShared ? 0 : *g;
    lane[v] =
        hn::IndicesFromVec(d, hn::Sub(hn::LoadU(di, g), hn::Set(di, static_cast<std::int32_t>(from[v]))));
    sums[v] = hn::Zero(d);
  }
  const Index last = channels - first - (kVectors - 1) * kLanes;  // of the last vector
  const PartLoad all(groups), end(last);
  for (Index r = 0; r < taps.rows; ++r) {
    const float *kernel = taps.kernel + r * taps.kernel_row, *x = taps.x + r * taps.x_row + first;
    for (Index s = 0; s < taps.columns; ++s, kernel += taps.kernel_step, x += taps.x_step) {
      FloatVec k = kShared ? all(kernel) : hn::Zero(d);
      for (int v = 0; v < kVectors; ++v) {
        if (!kShared) k = load_some(d, kernel + from[v], groups - from[v]);
        const auto y = v + 1 < kVectors ? hn::LoadU(d, x + v * kLanes) : end(x + v * kLanes);
        sums[v] = hn::MulAdd(hn::TableLookupLanes(k, lane[v]), y, sums[v]);
      }
    }
  }
  for (int v = 0; v + 1 < kVectors; ++v) hn::StoreU(sums[v], d, out + first + v * kLanes);
  store_some(sums[kVectors - 1], d, out + first + (kVectors - 1) * kLanes, last);
}

template <bool kShared>
HWY_INLINE void local_pixel(const LocalTaps& taps, GroupOfChannel group, Index channels, Index groups,
                            float* out) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  Index c = 0;
  for (; c + 3 * kLanes < channels; c += 4 * kLanes)
    local_channels<4, kShared>(taps, group, c, channels, groups, out);
  const Index left = channels - c;
  if (left > 2 * kLanes)
    local_channels<3, kShared>(taps, group, c, channels, groups, out);
  else if (left > kLanes)
    local_channels<2, kShared>(taps, group, c, channels, groups, out);
  else if (left > 0)
    local_channels<1, kShared>(taps, group, c, channels, groups, out);
}

// Pixels [begin, end) of the flattened [N, H', W].
void local_conv_pixels(const DynamicLocalConv& a, GroupOfChannel group, Index begin, Index end) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  const Index rows = a.out.shape[1], columns = a.out.shape[2], channels = a.out.shape[3];
  const Index height = a.x.shape[1], groups = a.kernels.shape[4];
  const Index kh = a.kernel[0], kw = a.kernel[1];
  LocalTaps taps;
  taps.kernel_step = a.kernels.strides[3], taps.kernel_row = kw * taps.kernel_step;
  taps.x_step = a.x.strides[2], taps.x_row = a.x.strides[1];
  for (Index pixel = begin; pixel < end; ++pixel) {
    const Index w = pixel % columns, h = pixel / columns % rows, n = pixel / columns / rows;
    const Index top = a.first_row + h - kh / 2, left = w - kw / 2;
    const Index r = std::max<Index>(0, -top), s = std::max<Index>(0, -left);
    taps.rows = std::min(kh, height - top) - r, taps.columns = std::min(kw, columns - left) - s;
    taps.kernel = a.kernels.at(n, h, w, r * kw + s), taps.x = a.x.at(n, top + r, left + s);
    float* out = a.out.at(n, h, w);
    if (groups <= kLanes)
      local_pixel<true>(taps, group, channels, groups, out);
    else
      local_pixel<false>(taps, group, channels, groups, out);
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
HWY_EXPORT(local_conv_pixels);
}  // namespace kernels

void dynamic_local_conv(const DynamicLocalConv& a, CpuExec& exec) {
  constexpr std::string_view kOp = "dynamic_local_conv";
  const Index images = a.x.shape[0], height = a.x.shape[1], columns = a.x.shape[2], channels = a.x.shape[3];
  const Index rows = a.out.shape[1], groups = a.kernels.shape[4];
  if (a.kernel[0] < 1 || a.kernel[1] < 1 || a.kernel[0] % 2 == 0 || a.kernel[1] % 2 == 0)
    refuse(kOp, "kernels of ", a.kernel[0], " x ", a.kernel[1], ", expected odd extents");
  if (groups < 1 || channels % groups != 0)
    refuse(kOp, groups, " groups do not divide ", channels, " channels");
  expect_shape(kOp, "x", a.x, a.x.shape);
  expect_shape(kOp, "out", a.out, {images, rows, columns, channels});
  expect_shape(kOp, "kernels", a.kernels, {images, rows, columns, a.kernel[0] * a.kernel[1], groups});
  if (a.first_row < 0 || a.first_row + rows > height)
    refuse(kOp, "rows [", a.first_row, ", ", a.first_row + rows, ") are wanted of an image of ", height);
  if (a.out.size() == 0) return;
  trace(exec, kOp, "channels along the lanes", "x", to_string(a.x.shape), " groups=", groups,
        " kernel=", a.kernel[0], "x", a.kernel[1]);
  CpuScratch scratch(exec);
  constexpr Index kLargestVector = 16;  // of any instruction set
  const View<std::int32_t, 1> group = scratch.get<std::int32_t>(channels + kLargestVector);
  for (Index c = 0; c < channels + kLargestVector; ++c)
    group(c) = static_cast<std::int32_t>(std::min(c, channels - 1) / (channels / groups));
  parallel_rows(exec, images * rows * columns, channels * a.kernel[0] * a.kernel[1],
                [&](Index begin, Index end) {
                  ASHLAR_DISPATCH(exec, local_conv_pixels)(a, group.data, begin, end);
                });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
