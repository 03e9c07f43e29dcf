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

// out = activation(sums) + residual for channels [first, first + columns) of `count` pixels of one row, the
// first with that number; sums [count, pitch], with room to read a vector more.
inline HWY_NOINLINE void finish_pixels(const Conv2dArgs& a, Index pixel, Index count, Index first,
                                       Index columns, const float* sums, Index pitch) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), width = a.out.shape[2], height = a.out.shape[1];
  const Index n = pixel / (width * height), h = pixel / width % height, w = pixel % width;
  float* out = a.out.at(n, h, w, first);
  const float* residual = a.residual ? a.residual.at(n, h, w, first) : nullptr;
  with_activation(a.activation, [&](auto f) HWY_ATTR {
    for (Index r = 0; r < count; ++r, sums += pitch, out += a.out.strides[2]) {
      for (Index c = 0; c < columns; c += lanes) {
        auto y = activation<decltype(f)::value>(d, hn::LoadU(d, sums + c), a.negative_slope);
        if (residual) y = hn::Add(y, load_some(d, residual + c, columns - c));
        store_some(y, d, out + c, columns - c);
      }
      if (residual) residual += a.residual.strides[2];
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
