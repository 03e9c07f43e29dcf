// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/pool2d.hpp"

#include <algorithm>
#include <limits>

#include "src/cpu/channel_sums.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/pool2d.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// window: the image, rows [top, bottom), columns [left, right).
void pool_window(const View<const float, 4>& x, const Index* window, float factor, bool max, float* out) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), channels = x.shape[3];
  const Index n = window[0], top = window[1], bottom = window[2], left = window[3], right = window[4];
  const auto scale = hn::Set(d, factor);
  for (Index c = 0; c < channels; c += lanes) {
    const Index rest = channels - c;
    auto y = hn::Set(d, max ? -std::numeric_limits<float>::infinity() : 0.0f);
    for (Index i = top; i < bottom; ++i)
      for (Index j = left; j < right; ++j) {
        const auto v = load_some(d, x.at(n, i, j, c), rest);
        y = max ? hn::IfThenElse(hn::Lt(v, y), y, v) : hn::Add(y, v);
      }
    store_some(max ? y : hn::Mul(y, scale), d, out + c, rest);
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
HWY_EXPORT(pool_window);
}  // namespace kernels
namespace {

struct Span {
  Index begin, end, count;  // pixels of a window along an axis, and by how many a mean divides
};

// out(n, i, j) from the pixels of spans(i, 0) by spans(j, 1).
template <class T, class Spans>
void pool(const T& a, CpuExec& exec, Spans&& spans) {
  const Index rows = a.out.shape[1], columns = a.out.shape[2], channels = a.out.shape[3];
  const Index covered = std::max<Index>(1, a.x.size() / std::max<Index>(1, a.out.shape[0] * rows));
  parallel_rows(
      exec, a.out.shape[0] * rows, std::max(columns * channels, covered), [&](Index begin, Index end) {
        for (Index row = begin; row < end; ++row)
          for (Index j = 0; j < columns; ++j) {
            const Span down = spans(row % rows, 0), across = spans(j, 1);
            const Index window[] = {row / rows, down.begin, down.end, across.begin, across.end};
            const float factor = 1 / static_cast<float>(std::max<Index>(1, down.count * across.count));
            ASHLAR_DISPATCH(exec, pool_window)
            (a.x, window, factor, a.mode == PoolMode::max, a.out.at(row / rows, row % rows, j));
          }
      });
}

}  // namespace

void pool2d(const Pool2d& a, CpuExec& exec) {
  constexpr std::string_view kOp = "pool2d";
  expect_shape(kOp, "x", a.x, a.x.shape);
  const Pool2dWindow& w = a.window;
  std::array<Index, 2> extent{};
  for (int axis : {0, 1}) {
    const Index k = w.kernel[axis], s = w.stride[axis], p = w.padding[axis];
    if (k < 1 || s < 1 || p < 0 || 2 * p > k)
      refuse(kOp, "kernel ", k, ", stride ", s, " and padding ", p,
             ", expected at least 1, 1 and 0, and a padding of at most half the kernel");
    extent[static_cast<std::size_t>(axis)] = pool2d_extent(a.x.shape[1 + axis], k, s, p, w.ceil_mode);
  }
  expect_shape(kOp, "out", a.out, {a.x.shape[0], extent[0], extent[1], a.x.shape[3]});
  trace(exec, kOp, "windows", to_string(a.x.shape), " by ", to_string(w.kernel));
  pool(a, exec, [&](Index i, int axis) -> Span {
    const Index in = a.x.shape[1 + axis], begin = i * w.stride[axis] - w.padding[axis],
                end = begin + w.kernel[axis];
    const Index first = std::max<Index>(begin, 0), last = std::max(first, std::min(end, in));
    return {first, last, w.count_include_pad ? std::min(end, in + w.padding[axis]) - begin : last - first};
  });
}

void adaptive_pool2d(const AdaptivePool2d& a, CpuExec& exec) {
  constexpr std::string_view kOp = "adaptive_pool2d";
  const Index images = a.x.shape[0], channels = a.x.shape[3];
  expect_shape(kOp, "x", a.x, a.x.shape);
  expect_shape(kOp, "out", a.out, {images, a.out.shape[1], a.out.shape[2], channels});
  if (a.x.shape[1] < 1 || a.x.shape[2] < 1)
    refuse(kOp, "x has shape ", to_string(a.x.shape), ", expected an image of at least one pixel");
  if (a.mode == PoolMode::average && a.out.shape[1] == 1 && a.out.shape[2] == 1) {
    trace(exec, kOp, "sums", to_string(a.x.shape));
    const View<float, 2> mean{a.out.data, {images, channels}, {a.out.strides[0], 1}};
    channel_sums(a.x, false, {}, mean, exec);
    const float pixels = static_cast<float>(a.x.shape[1] * a.x.shape[2]);
    for (Index n = 0; n < images; ++n)
      for (Index c = 0; c < channels; ++c) mean(n, c) /= pixels;
    return;
  }
  trace(exec, kOp, "windows", to_string(a.x.shape), " -> ", to_string(a.out.shape));
  pool(a, exec, [&](Index i, int axis) -> Span {
    const Index in = a.x.shape[1 + axis], out = a.out.shape[1 + axis];
    const Index begin = i * in / out, end = ((i + 1) * in + out - 1) / out;
    return {begin, end, end - begin};
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
