// SPDX-License-Identifier: Apache-2.0
#include "src/cpu/channel_sums.hpp"

#include <algorithm>

#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/channel_sums.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// out [channels] += that of `pixels` pixels. centre may be null.
void add_channels(const float* x, Index stride, Index pixels, Index channels, bool square,
                  const float* centre, float* out) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto add = [&](FloatVec total, FloatVec v, FloatVec middle) HWY_ATTR {
    if (!square) return hn::Add(total, v);
    v = hn::Sub(v, middle);
    return hn::MulAdd(v, v, total);
  };
  // Four pixels at a time: the totals are read and written a quarter as often.
  for (Index p = 0; p < pixels;) {
    const Index together = std::min<Index>(4, pixels - p);
    for (Index c = 0; c < channels; c += lanes) {
      const Index left = channels - c;
      const auto middle = centre ? load_some(d, centre + c, left) : hn::Zero(d);
      auto total = load_some(d, out + c, left);
      for (Index i = 0; i < together; ++i)
        total = add(total, load_some(d, x + (p + i) * stride + c, left), middle);
      store_some(total, d, out + c, left);
    }
    p += together;
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
HWY_EXPORT(add_channels);
}  // namespace kernels

void channel_sums(View<const float, 4> x, bool square, View<const float, 2> centre, View<float, 2> out,
                  CpuExec& exec) {
  const Index images = x.shape[0], height = x.shape[1], width = x.shape[2], channels = x.shape[3];
  const Index rows = std::max<Index>(1, 32768 / std::max<Index>(1, width * channels));
  const Index parts = (height + rows - 1) / rows;
  CpuScratch scratch(exec);
  const auto sums = scratch.floats(images, parts, channels);
  exec.parallel_for(images * parts, [&](Index task, int) {
    const Index n = task / parts, part = task % parts;
    std::fill_n(sums.at(n, part), channels, 0.0f);
    for (Index h = part * rows; h < std::min(height, (part + 1) * rows); ++h)
      ASHLAR_DISPATCH(exec, add_channels)
    (x.at(n, h), x.strides[2], width, channels, square, centre ? centre.at(n) : nullptr, sums.at(n, part));
  });
  for (Index n = 0; n < images; ++n) {
    std::copy_n(sums.at(n, 0), channels, out.at(n));
    for (Index part = 1; part < parts; ++part)
      for (Index c = 0; c < channels; ++c) out(n, c) += sums(n, part, c);
  }
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
