// SPDX-License-Identifier: Apache-2.0
#if defined(ASHLAR_KERNELS_ACTIVATION_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_ACTIVATION_INL_HPP_
#undef ASHLAR_KERNELS_ACTIVATION_INL_HPP_
#else
#define ASHLAR_KERNELS_ACTIVATION_INL_HPP_
#endif

#include "ashlar/kernels/simd-inl.hpp"
#include "ashlar/ops/activation.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// The functions of Activation on a vector; error within 4 ulp of the result, or of 1 where the function cancels.
// TODO-REPLACED-BY-HELPER
HWY_INLINE FloatVec activation(Activation f, FloatTag d, FloatVec x) {
  switch (f) {
    case Activation::silu: return hn::Mul(x, sigmoid(d, x));
    case Activation::sigmoid: return sigmoid(d, x);
    default: return x;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
