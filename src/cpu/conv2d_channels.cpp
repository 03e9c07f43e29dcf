// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution: vectors of channels, a run of neighbouring pixels at a time whose inputs are loaded
// once for all that see them.
#include <algorithm>

#include "src/cpu/conv2d.hpp"
#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/conv2d_channels.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "src/cpu/conv2d_finish-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Sums of a run: with its weights and an input they have to fit the registers.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
inline constexpr int kRun = 8;
#else
inline constexpr int kRun = 4;
#endif

// kCount pixels from w on, whose taps are all inside the image, `kLanes` channels at c. The sum of a pixel is
// in the order of its taps, whatever the run.
template <int kCount, int kWidth, int kStride>
HWY_INLINE void depthwise_run(const DepthwiseRow& a, Index w, Index c) {
  const FloatTag d;
  FloatVec sums[kCount];
  const auto bias = a.bias ? hn::LoadU(d, a.bias + c) : hn::Zero(d);
  ASHLAR_UNROLL
  for (int p = 0; p < kCount; ++p) sums[p] = bias;
  for (Index r = 0; r < a.kh; ++r) {
    if (a.rows[r] == nullptr) continue;
    const float* x = a.rows[r] + (w * a.stride - a.padding) * a.pixel + c;
    const float* weights = a.weights + r * a.kw * a.pitch + c;
    if constexpr (kWidth != 0) {
      FloatVec taps[kWidth];
      ASHLAR_UNROLL
      for (int t = 0; t < kWidth; ++t) taps[t] = hn::LoadU(d, weights + t * a.pitch);
      ASHLAR_UNROLL
      for (int j = 0; j < (kCount - 1) * kStride + kWidth; ++j) {
        const auto v = hn::LoadU(d, x + j * a.pixel);
        ASHLAR_UNROLL
        for (int p = 0; p < kCount; ++p) {
          const int t = j - p * kStride;
          if (t >= 0 && t < kWidth) sums[p] = hn::MulAdd(v, taps[t], sums[p]);
        }
      }
    } else {
      for (Index t = 0; t < a.kw; ++t) {
        const auto tap = hn::LoadU(d, weights + t * a.pitch);
        ASHLAR_UNROLL
        for (int p = 0; p < kCount; ++p)
          sums[p] = hn::MulAdd(hn::LoadU(d, x + (p * a.stride + t * a.dilation) * a.pixel), tap, sums[p]);
      }
    }
  }
  ASHLAR_UNROLL
  for (int p = 0; p < kCount; ++p) hn::StoreU(sums[p], d, a.out + (w + p) * a.out_pixel + c);
}

// One pixel, `count` channels at c, taps outside the image left out.
void depthwise_pixel(const DepthwiseRow& a, Index w, Index c, Index count) {
  const FloatTag d;
  auto sum = a.bias ? load_some(d, a.bias + c, count) : hn::Zero(d);
  for (Index r = 0; r < a.kh; ++r) {
    if (a.rows[r] == nullptr) continue;
    for (Index t = 0; t < a.kw; ++t) {
      const Index j = w * a.stride - a.padding + t * a.dilation;
      if (j < 0 || j >= a.width) continue;
      sum = hn::MulAdd(load_some(d, a.rows[r] + j * a.pixel + c, count),
                       load_some(d, a.weights + (r * a.kw + t) * a.pitch + c, count), sum);
    }
  }
  store_some(sum, d, a.out + w * a.out_pixel + c, count);
}

template <int kWidth, int kStride>
HWY_INLINE void depthwise_columns(const DepthwiseRow& a, Index c) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  // Columns [begin, end) see nothing outside.
  const Index begin = std::min(a.columns, (a.padding + a.stride - 1) / a.stride);
  const Index room = a.width + a.padding - (a.kw - 1) * a.dilation - 1;
  const Index end = std::clamp(room < 0 ? 0 : room / a.stride + 1, begin, a.columns);
  Index w = 0;
  for (; w < begin; ++w) depthwise_pixel(a, w, c, kLanes);
  for (; w + kRun <= end; w += kRun) depthwise_run<kRun, kWidth, kStride>(a, w, c);
  for (; w < end; ++w) depthwise_run<1, kWidth, kStride>(a, w, c);
  for (; w < a.columns; ++w) depthwise_pixel(a, w, c, kLanes);
}

// All channels of a row.
void conv2d_channels_row(const DepthwiseRow& a, Index channels) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  const auto columns = [&](Index c) HWY_ATTR {
    if (a.dilation == 1 && a.stride == 1 && a.kw == 3) return depthwise_columns<3, 1>(a, c);
    if (a.dilation == 1 && a.stride == 1 && a.kw == 5) return depthwise_columns<5, 1>(a, c);
    if (a.dilation == 1 && a.stride == 1 && a.kw == 7) return depthwise_columns<7, 1>(a, c);
    return depthwise_columns<0, 0>(a, c);
  };
  Index c = 0;
  for (; c + kLanes <= channels; c += kLanes) columns(c);
  if (c == channels) return;
  // The last channels together with some that are there already, whose numbers come out the same.
  if (channels >= kLanes) return columns(channels - kLanes);
  for (Index w = 0; w < a.columns; ++w) depthwise_pixel(a, w, c, channels - c);
}

void conv2d_channels_finish(const Conv2dArgs& a, Index pixel, Index count, const float* sums, Index pitch) {
  finish_pixels(a, pixel, count, 0, a.weight.outputs(), sums, pitch, nullptr);
}

// to [columns, times channels]: each channel of a row that many times.
void conv2d_repeat(const float* from, Index pixel, Index columns, Index channels, Index times, float* to) {
  for (Index j = 0; j < columns; ++j, from += pixel)
    for (Index c = 0; c < channels; ++c, to += times) std::fill_n(to, times, from[c]);
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
HWY_EXPORT(conv2d_channels_row);
HWY_EXPORT(conv2d_channels_finish);
HWY_EXPORT(conv2d_repeat);
}  // namespace kernels

void conv2d_channels(const Conv2dArgs& a, CpuExec& exec) {
  constexpr Index kRows = 4;  // of the output, one task's
  const Conv2dSteps& s = a.steps;
  const Index kh = a.weight.kernel()[0], kw = a.weight.kernel()[1], outputs = a.weight.outputs(),
              times = outputs / a.weight.inputs(), width = a.x.shape[2];
  const Index images = a.out.shape[0], height = a.out.shape[1], columns = a.out.shape[2];
  const bool plain = a.activation == Activation::identity && !a.residual;
  const Index bands = (height + kRows - 1) / kRows;
  const Index span = times == 1 ? 0 : (kRows - 1) * s.stride[0] + (kh - 1) * s.dilation[0] + 1;
  CpuScratch scratch(exec);
  const auto row_memory = scratch.get<const float*>(exec.threads(), kh);
  const auto sums = scratch.floats(exec.threads(), plain ? 0 : columns * outputs);
  const auto repeated = scratch.floats(exec.threads(), span * width * outputs);
  exec.parallel_for(images * bands, [&](Index task, int worker) {
    const Index n = task / bands, top = task % bands * kRows, bottom = std::min(height, top + kRows);
    const Index first = top * s.stride[0] - s.padding[0];
    for (Index i = 0; i < span; ++i)
      if (first + i >= 0 && first + i < a.x.shape[1]) ASHLAR_DISPATCH(exec, conv2d_repeat)
    (a.x.at(n, first + i), a.x.strides[2], width, a.weight.inputs(), times,
     repeated.at(worker, i * width * outputs));
    const float** rows = row_memory.at(worker);
    for (Index h = top; h < bottom; ++h) {
      for (Index r = 0; r < kh; ++r) {
        const Index y = h * s.stride[0] - s.padding[0] + r * s.dilation[0];
        rows[r] = y < 0 || y >= a.x.shape[1] ? nullptr
                  : times == 1               ? a.x.at(n, y)
                                             : repeated.at(worker, (y - first) * width * outputs);
      }
      const DepthwiseRow row{rows,
                             a.weight.packed().data(),
                             a.bias ? a.bias.data : nullptr,
                             plain ? a.out.at(n, h) : sums.at(worker),
                             times == 1 ? a.x.strides[2] : outputs,
                             plain ? a.out.strides[2] : outputs,
                             outputs,
                             columns,
                             width,
                             kh,
                             kw,
                             s.stride[1],
                             s.dilation[1],
                             s.padding[1]};
      ASHLAR_DISPATCH(exec, conv2d_channels_row)(row, outputs);
      if (!plain) ASHLAR_DISPATCH(exec, conv2d_channels_finish)
      (a, (n * height + h) * columns, columns, sums.at(worker), outputs);
    }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
