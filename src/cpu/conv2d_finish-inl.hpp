// SPDX-License-Identifier: Apache-2.0
#if defined(ASHLAR_SRC_CPU_CONV2D_FINISH_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_SRC_CPU_CONV2D_FINISH_INL_HPP_
#undef ASHLAR_SRC_CPU_CONV2D_FINISH_INL_HPP_
#else
#define ASHLAR_SRC_CPU_CONV2D_FINISH_INL_HPP_
#endif

#include "ashlar/kernels/activation-inl.hpp"
#include "src/cpu/conv2d.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// out = activation(sums + bias) + residual for channels [first, first + columns) of `count` pixels, the first
// with that number; sums [count, pitch]. A null bias: none, whatever the layer has.
HWY_INLINE void finish_pixels(const Conv2dArgs& a, Index pixel, Index count, Index first, Index columns,
                              const float* sums, Index pitch, const float* bias) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  with_activation(a.activation, [&](auto f) HWY_ATTR {
    PixelCursor at(pixel, a.out.shape[1], a.out.shape[2]);
    for (Index r = 0; r < count; ++r, at.next(), sums += pitch) {
      float* out = a.out.at(at.n, at.h, at.w, first);
      const float* residual = a.residual ? a.residual.at(at.n, at.h, at.w, first) : nullptr;
      Index c = 0;
      for (; c + lanes <= columns; c += lanes) {
        auto y = hn::LoadU(d, sums + c);
        if (bias) y = hn::Add(y, hn::LoadU(d, bias + c));
        y = activation<decltype(f)::value>(d, y, a.negative_slope);
        if (residual) y = hn::Add(y, hn::LoadU(d, residual + c));
        hn::StoreU(y, d, out + c);
      }
      if constexpr (decltype(f)::value == Activation::identity)  // few channels: an image
        for (; c < columns; ++c) out[c] = sums[c] + (bias ? bias[c] : 0) + (residual ? residual[c] : 0);
      if (c == columns) continue;
      const Index left = columns - c;
      auto y = load_n(d, sums + c, left);
      if (bias) y = hn::Add(y, load_n(d, bias + c, left));
      y = activation<decltype(f)::value>(d, y, a.negative_slope);
      if (residual) y = hn::Add(y, load_n(d, residual + c, left));
      store_n(y, d, out + c, left);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
