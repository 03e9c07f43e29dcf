// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/resize.hpp"

#include <algorithm>
#include <cmath>

#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/resize.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// out [count] = the sum of rows[t] * weights[t]. kTaps of them, or those that there are.
template <int kTaps>
HWY_INLINE void resize_blend(const float* const* rows, const float* weights, Index all, Index count,
                             float* out) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), taps = kTaps != 0 ? kTaps : all;
  for (Index i = 0; i < count; i += lanes) {
    const Index left = count - i;
    auto y = hn::Mul(load_some(d, rows[0] + i, left), hn::Set(d, weights[0]));
    for (Index t = 1; t < taps; ++t)
      y = hn::MulAdd(load_some(d, rows[t] + i, left), hn::Set(d, weights[t]), y);
    store_some(y, d, out + i, left);
  }
}

void resize_blend_rows(const float* const* rows, const float* weights, Index taps, Index count, float* out) {
  if (taps == 1) return resize_blend<1>(rows, weights, taps, count, out);
  if (taps == 2) return resize_blend<2>(rows, weights, taps, count, out);
  if (taps == 4) return resize_blend<4>(rows, weights, taps, count, out);
  resize_blend<0>(rows, weights, taps, count, out);
}

// The same for few channels: kChannels of them, or those that there are.
template <int kChannels, int kTaps>
HWY_INLINE void resize_few(const float* x, Index pixel, const Index* from, const float* weights, Index all,
                           Index columns, Index channels, float* out) {
  const Index count = kChannels != 0 ? kChannels : channels, taps = kTaps != 0 ? kTaps : all;
  for (Index w = 0; w < columns; ++w, from += taps, weights += taps, out += count)
    for (Index c = 0; c < count; ++c) {
      float y = x[from[0] * pixel + c] * weights[0];
      for (Index t = 1; t < taps; ++t) y += x[from[t] * pixel + c] * weights[t];
      out[c] = y;
    }
}

// A row: out [columns, channels] from x [.., channels], pixels `pixel` apart; from, weights [columns, taps].
void resize_row(const float* x, Index pixel, const Index* from, const float* weights, Index taps,
                Index columns, Index channels, float* out) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  if (channels == 3 && taps == 2)
    return resize_few<3, 2>(x, pixel, from, weights, taps, columns, channels, out);
  if (channels == 3 && taps == 4)
    return resize_few<3, 4>(x, pixel, from, weights, taps, columns, channels, out);
  if (channels == 3) return resize_few<3, 0>(x, pixel, from, weights, taps, columns, channels, out);
  if (channels < lanes) return resize_few<0, 0>(x, pixel, from, weights, taps, columns, channels, out);
  for (Index w = 0; w < columns; ++w, from += taps, weights += taps, out += channels)
    for (Index c = 0; c < channels; c += lanes) {
      const Index left = channels - c;
      auto y = hn::Mul(load_some(d, x + from[0] * pixel + c, left), hn::Set(d, weights[0]));
      for (Index t = 1; t < taps; ++t)
        y = hn::MulAdd(load_some(d, x + from[t] * pixel + c, left), hn::Set(d, weights[t]), y);
      store_some(y, d, out + c, left);
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
HWY_EXPORT(resize_blend_rows);
HWY_EXPORT(resize_row);
}  // namespace kernels
namespace {

constexpr std::string_view kOp = "resize";

double cubic(double x, double a) {
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? a * (((x - 5) * x + 8) * x - 4) : 0;
}

// Which elements of an axis make the ones of its resized form.
class Axis {
 public:
  Axis(const Resize& a, int axis, CpuScratch& scratch)
      : mode_(a.mode), antialias_(a.antialias), in_(a.x.shape[1 + axis]), out_(a.out.shape[1 + axis]) {
    const double n = static_cast<double>(in_), o = static_cast<double>(out_), factor = a.scale_factor[axis];
    corners_ = a.align_corners && !nearest();
    step_ = corners_ ? out_ > 1 ? (n - 1) / (o - 1) : 0 : factor > 0 ? 1 / factor : n / o;
    wide_ = std::max(step_, 1.0);
    taps = nearest()    ? 1
           : antialias_ ? static_cast<Index>(std::ceil(2 * half() * wide_)) + 2
                        : 2 * static_cast<Index>(half());
    from = scratch.get<Index>(out_, taps);
    weights = scratch.floats(out_, taps);
    for (Index i = 0; i < out_; ++i) fill(i);
  }
  // The first of what elements [begin, end) need, and the one behind the last.
  std::pair<Index, Index> needed(Index begin, Index end) const {
    Index first = in_, last = 0;
    for (Index i = begin; i < end; ++i)
      for (Index t = 0; t < taps; ++t)
        first = std::min(first, from(i, t)), last = std::max(last, from(i, t) + 1);
    return {first, last};
  }

  Index taps;
  View<Index, 2> from;  // [out, taps]
  View<float, 2> weights;

 private:
  bool nearest() const { return mode_ == ResizeMode::nearest || mode_ == ResizeMode::nearest_exact; }
  double half() const { return mode_ == ResizeMode::bicubic ? 2 : 1; }
  void set(Index i, Index t, Index j, double weight) {
    from(i, t) = std::clamp<Index>(j, 0, in_ - 1), weights(i, t) = static_cast<float>(weight);
  }
  void fill(Index i) {
    const double at = static_cast<double>(i), centre = step_ * (at + 0.5);
    if (nearest())
      return set(i, 0, static_cast<Index>(std::floor(mode_ == ResizeMode::nearest ? step_ * at : centre)), 1);
    if (antialias_) return fill_antialiased(i, centre);
    double source = corners_ ? step_ * at : centre - 0.5;
    if (mode_ == ResizeMode::bilinear) source = std::max(source, 0.0);
    const double floor = std::floor(source), t = source - floor;
    const Index k = static_cast<Index>(floor);
    if (mode_ == ResizeMode::bilinear) return set(i, 0, k, 1 - t), set(i, 1, k + 1, t);
    for (Index j = 0; j < 4; ++j) set(i, j, k + j - 1, cubic(static_cast<double>(j - 1) - t, -0.75));
  }
  void fill_antialiased(Index i, double centre) {
    const double support = half() * wide_;
    const auto weight = [&](Index j) {
      const double x = (static_cast<double>(j) - centre + 0.5) / wide_;
      return mode_ == ResizeMode::bicubic ? cubic(x, -0.5) : std::max(1 - std::abs(x), 0.0);
    };
    const Index begin = std::max<Index>(static_cast<Index>(centre - support + 0.5), 0);
    const Index end = std::min({static_cast<Index>(centre + support + 0.5), in_, begin + taps});
    double total = 0;
    for (Index j = begin; j < end; ++j) total += weight(j);
    for (Index t = 0; t < taps; ++t)
      set(i, t, std::min(begin + t, end - 1), begin + t < end ? weight(begin + t) / total : 0);
  }

  ResizeMode mode_;
  bool antialias_, corners_ = false;
  Index in_, out_;
  double step_ = 1, wide_ = 1;
};

void check(const Resize& a) {
  expect_shape(kOp, "x", a.x, a.x.shape);
  expect_shape(kOp, "out", a.out, {a.x.shape[0], a.out.shape[1], a.out.shape[2], a.x.shape[3]});
  const bool nearest = a.mode == ResizeMode::nearest || a.mode == ResizeMode::nearest_exact;
  if (a.antialias && (a.align_corners || nearest))
    refuse(kOp, "antialias was asked for ", nearest ? "with a nearest mode" : "with align_corners",
           ", expected bilinear or bicubic without align_corners");
  if (a.x.shape[1] < 1 || a.x.shape[2] < 1)
    refuse(kOp, "x has shape ", to_string(a.x.shape), ", expected an image of at least one pixel");
  for (double factor : a.scale_factor)
    if (!(factor >= 0) || std::isinf(factor))
      refuse(kOp, "a scale factor is ", factor, ", expected a positive number, or 0 for none");
}

}  // namespace

// Rows first or columns first, by which leaves less to do: a band of output rows at a time.
void resize(const Resize& a, CpuExec& exec) {
  check(a);
  const Index images = a.x.shape[0], channels = a.x.shape[3], rows = a.out.shape[1], columns = a.out.shape[2],
              width = a.x.shape[2];
  trace(exec, kOp, "two passes", to_string(a.x.shape), " -> ", to_string(a.out.shape));
  if (a.out.size() == 0) return;
  CpuScratch scratch(exec);
  const Axis down(a, 0, scratch), across(a, 1, scratch);
  const bool across_first = a.x.shape[1] <= rows;
  const Index band = std::clamp<Index>(32768 / (columns * channels), 1, 32), bands = (rows + band - 1) / band;
  Index most = 1;  // input rows that a band needs
  for (Index b = 0; b < bands && across_first; ++b) {
    const auto [first, last] = down.needed(b * band, std::min(rows, (b + 1) * band));
    most = std::max(most, last - first);
  }
  const Index row_size = (across_first ? columns : width) * channels;
  const auto between = scratch.floats(exec.threads(), most, row_size);
  const auto line = scratch.floats(exec.threads(), std::max(columns, width) * channels);
  const auto pointers = scratch.get<const float*>(exec.threads(), down.taps);
  const bool packed_in = a.x.strides[2] == channels, packed_out = a.out.strides[2] == channels;
  exec.parallel_for(images * bands, [&](Index task, int worker) {
    const Index n = task / bands, begin = task % bands * band, end = std::min(rows, begin + band);
    const std::pair<Index, Index> seen = down.needed(begin, end);
    float* const spare = line.at(worker);
    const auto resize_across = [&](const float* x, Index pixel, float* out) {
      ASHLAR_DISPATCH(exec, resize_row)
      (x, pixel, across.from.data, across.weights.data, across.taps, columns, channels, out);
    };
    const auto store_row = [&](Index h) {  // what is in `spare`
      for (Index w = 0; w < columns; ++w) std::copy_n(spare + w * channels, channels, a.out.at(n, h, w));
    };
    for (Index y = seen.first; y < seen.second && across_first; ++y)
      resize_across(a.x.at(n, y), a.x.strides[2], between.at(worker, y - seen.first));
    const float** sources = pointers.at(worker);
    for (Index h = begin; h < end; ++h) {
      if (across_first) {
        for (Index t = 0; t < down.taps; ++t) sources[t] = between.at(worker, down.from(h, t) - seen.first);
        float* to = packed_out ? a.out.at(n, h) : spare;
        ASHLAR_DISPATCH(exec, resize_blend_rows)(sources, down.weights.at(h), down.taps, row_size, to);
      } else {
        float* const blended = between.at(worker);
        for (Index t = 0; t < down.taps; ++t) sources[t] = a.x.at(n, down.from(h, t));
        if (packed_in)
          ASHLAR_DISPATCH(exec, resize_blend_rows)(sources, down.weights.at(h), down.taps, row_size, blended);
        else
          for (Index w = 0; w < width; ++w) {
            for (Index t = 0; t < down.taps; ++t) sources[t] = a.x.at(n, down.from(h, t), w);
            ASHLAR_DISPATCH(exec, resize_blend_rows)
            (sources, down.weights.at(h), down.taps, channels, blended + w * channels);
          }
        resize_across(blended, channels, packed_out ? a.out.at(n, h) : spare);
      }
      if (!packed_out) store_row(h);
    }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
