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
constexpr int kDepthwiseRun = 8;
#else
constexpr int kDepthwiseRun = 4;
#endif

// Where the sums of a pixel go.
struct DepthwiseOut {
  float* at;    // the first pixel's
  Index pixel;  // from one to the next
};

// kCount pixels from w on, whose taps are all inside the image, a vector of channels at c. rows: those of the
// taps. The sum of a pixel is in the order of its taps, whatever the run.
template <int kCount, int kWidth>
HWY_INLINE void depthwise_run(const Conv2dArgs& a, const DepthwiseBand& b, const float* const* rows, Index w,
                              Index c, DepthwiseOut out) {
  const FloatTag d;
  const Index kh = a.weight.kernel()[0], kw = a.weight.kernel()[1], channels = a.weight.outputs();
  const Index stride = kWidth != 0 ? 1 : a.steps.stride[1], dilation = kWidth != 0 ? 1 : a.steps.dilation[1];
  FloatVec sums[kCount];
  const auto bias = b.bias ? hn::LoadU(d, b.bias + c) : hn::Zero(d);
  ASHLAR_UNROLL
  for (int p = 0; p < kCount; ++p) sums[p] = bias;
  for (Index r = 0; r < kh; ++r) {
    const float* row = rows[r * a.steps.dilation[0]];
    if (row == nullptr) continue;
    const float* x = row + (w * stride - a.steps.padding[1]) * b.pixel + c;
    const float* weights = b.weights + r * kw * channels + c;
    if constexpr (kWidth != 0) {
      FloatVec inputs[kCount - 1 + kWidth];
      ASHLAR_UNROLL
      for (int j = 0; j < kCount - 1 + kWidth; ++j) inputs[j] = hn::LoadU(d, x + j * b.pixel);
      ASHLAR_UNROLL
      for (int t = 0; t < kWidth; ++t) {
        const auto tap = hn::LoadU(d, weights + t * channels);
        ASHLAR_UNROLL
        for (int p = 0; p < kCount; ++p) sums[p] = hn::MulAdd(inputs[p + t], tap, sums[p]);
      }
    } else {
      for (Index t = 0; t < kw; ++t) {
        const auto tap = hn::LoadU(d, weights + t * channels);
        ASHLAR_UNROLL
        for (int p = 0; p < kCount; ++p)
          sums[p] = hn::MulAdd(hn::LoadU(d, x + (p * stride + t * dilation) * b.pixel), tap, sums[p]);
      }
    }
  }
  ASHLAR_UNROLL
  for (int p = 0; p < kCount; ++p) hn::StoreU(sums[p], d, out.at + p * out.pixel + c);
}

// One pixel, a vector of channels at c, or `count` of them; taps outside the image left out.
template <bool kWhole>
HWY_INLINE void depthwise_pixel(const Conv2dArgs& a, const DepthwiseBand& b, const float* const* rows,
                                Index w, Index c, Index count, float* out) {
  const FloatTag d;
  const auto get = [&](const float* p) HWY_ATTR { return kWhole ? hn::LoadU(d, p) : load_n(d, p, count); };
  const Index kh = a.weight.kernel()[0], kw = a.weight.kernel()[1], channels = a.weight.outputs();
  const Index dilation = a.steps.dilation[1], left = w * a.steps.stride[1] - a.steps.padding[1];
  // Taps [begin, end) are inside.
  const Index begin = left < 0 ? std::min(kw, (dilation - 1 - left) / dilation) : 0;
  const Index end = std::clamp((a.x.shape[2] - left + dilation - 1) / dilation, begin, kw);
  auto sum = b.bias ? get(b.bias + c) : hn::Zero(d);
  for (Index r = 0; r < kh; ++r) {
    const float* row = rows[r * a.steps.dilation[0]];
    if (row == nullptr) continue;
    for (Index t = begin; t < end; ++t)
      sum = hn::MulAdd(get(row + (left + t * dilation) * b.pixel + c),
                       get(b.weights + (r * kw + t) * channels + c), sum);
  }
  if constexpr (kWhole)
    hn::StoreU(sum, d, out + c);
  else
    store_n(sum, d, out + c, count);
}

// kCount pixels from w on of all rows of a band, all channels; the first `done` of them are there already.
template <int kCount, int kWidth>
void depthwise_pixels(const Conv2dArgs& a, const DepthwiseBand& b, Index w, bool inside, Index done = 0) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  const Index channels = a.weight.outputs();
  const auto out = [&](Index h) -> DepthwiseOut {
    if (b.sums) return {b.sums + h * kCount * channels, channels};
    return {a.out.at(b.n, b.top + h, w), a.out.strides[2]};
  };
  for (Index c = 0; c < channels; c += kLanes) {
    // The last channels together with some that are there already, whose numbers come out the same.
    const Index at = channels >= kLanes ? std::min(c, channels - kLanes) : c;
    for (Index h = 0; h < b.height; ++h) {
      const float* const* rows = b.rows + h * a.steps.stride[0];
      const DepthwiseOut to = out(h);
      if (inside && channels >= kLanes)
        depthwise_run<kCount, kWidth>(a, b, rows, w, at, to);
      else
        for (Index p = 0; p < kCount; ++p)
          if (channels >= kLanes)
            depthwise_pixel<true>(a, b, rows, w + p, at, kLanes, to.at + p * to.pixel);
          else
            depthwise_pixel<false>(a, b, rows, w + p, at, channels, to.at + p * to.pixel);
    }
  }
  if (!b.sums) return;
  const Index width = a.out.shape[2];
  for (Index h = 0; h < b.height; ++h)
    finish_pixels(a, (b.n * a.out.shape[1] + b.top + h) * width + w + done, kCount - done, 0, channels,
                  out(h).at + done * channels, channels);
}

template <int kWidth>
void depthwise_band(const Conv2dArgs& a, const DepthwiseBand& b) {
  const Index width = a.out.shape[2], stride = a.steps.stride[1], padding = a.steps.padding[1];
  // Columns [begin, end) see nothing outside.
  const Index begin = std::min(width, (padding + stride - 1) / stride);
  const Index room = a.x.shape[2] + padding - (a.weight.kernel()[1] - 1) * a.steps.dilation[1] - 1;
  const Index end = std::clamp(room < 0 ? 0 : room / stride + 1, begin, width);
  Index w = 0;
  for (; w < begin; ++w) depthwise_pixels<1, kWidth>(a, b, w, false);
  for (; w + kDepthwiseRun <= end; w += kDepthwiseRun) depthwise_pixels<kDepthwiseRun, kWidth>(a, b, w, true);
  if (w < end && end - begin >= kDepthwiseRun) {  // the last ones together with some from before
    depthwise_pixels<kDepthwiseRun, kWidth>(a, b, end - kDepthwiseRun, true, w - (end - kDepthwiseRun));
    w = end;
  }
  for (; w < end; ++w) depthwise_pixels<1, kWidth>(a, b, w, true);
  for (; w < width; ++w) depthwise_pixels<1, kWidth>(a, b, w, false);
}

void conv2d_channels_band(const Conv2dArgs& a, const DepthwiseBand& b) {
  const Index kw = a.steps.stride[1] == 1 && a.steps.dilation[1] == 1 ? a.weight.kernel()[1] : 0;
  if (kw == 3) return depthwise_band<3>(a, b);
  if (kw == 5) return depthwise_band<5>(a, b);
  if (kw == 7) return depthwise_band<7>(a, b);
  depthwise_band<0>(a, b);
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
HWY_EXPORT(conv2d_channels_band);
HWY_EXPORT(conv2d_repeat);
}  // namespace kernels

void conv2d_channels(const Conv2dArgs& a, CpuExec& exec) {
  constexpr Index kMostRun = 8, kMostLanes = 16;
  const Conv2dSteps& s = a.steps;
  // Rows of the output of a task: together, where they share inputs.
  const Index together = s.stride[0] < a.weight.kernel()[0] ? 4 : 1;
  const Index outputs = a.weight.outputs(), inputs = a.weight.inputs(), times = outputs / inputs,
              width = a.x.shape[2];
  const Index images = a.out.shape[0], height = a.out.shape[1], bands = (height + together - 1) / together;
  const bool plain = a.activation == Activation::identity && !a.residual;
  const Index seen = (together - 1) * s.stride[0] + (a.weight.kernel()[0] - 1) * s.dilation[0] + 1;
  CpuScratch scratch(exec);
  const auto row_memory = scratch.get<const float*>(exec.threads(), seen);
  const auto sums = scratch.floats(exec.threads(), plain ? 0 : together * kMostRun * outputs + kMostLanes);
  const auto repeated = scratch.floats(exec.threads(), times == 1 ? 0 : seen, width * outputs);
  exec.parallel_for(images * bands, [&](Index task, int worker) {
    const Index n = task / bands, top = task % bands * together;
    const float** rows = row_memory.at(worker);
    for (Index i = 0; i < seen; ++i) {
      const Index y = top * s.stride[0] - s.padding[0] + i;
      rows[i] = y < 0 || y >= a.x.shape[1] ? nullptr : a.x.at(n, y);
      if (times == 1 || rows[i] == nullptr) continue;
      float* to = repeated.at(worker, i);
      ASHLAR_DISPATCH(exec, conv2d_repeat)(rows[i], a.x.strides[2], width, inputs, times, to);
      rows[i] = to;
    }
    const DepthwiseBand band{rows,
                             a.weight.packed().data(),
                             a.bias ? a.bias.data : nullptr,
                             plain ? nullptr : sums.at(worker),
                             n,
                             top,
                             std::min(together, height - top),
                             times == 1 ? a.x.strides[2] : outputs};
    ASHLAR_DISPATCH(exec, conv2d_channels_band)(a, band);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
