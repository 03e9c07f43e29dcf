// SPDX-License-Identifier: Apache-2.0
#if defined(ASHLAR_KERNELS_ACTIVATION_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_ACTIVATION_INL_HPP_
#undef ASHLAR_KERNELS_ACTIVATION_INL_HPP_
#else
#define ASHLAR_KERNELS_ACTIVATION_INL_HPP_
#endif

#include <type_traits>

#include "ashlar/kernels/simd-inl.hpp"
#include "ashlar/ops/activation.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// x s / (1 + u) with u = e^-|w|, s = 1 for w >= 0 and u below: x sigmoid(w). x is finite or +inf.
HWY_INLINE FloatVec times_sigmoid(FloatTag d, FloatVec x, FloatVec w) {
  const auto u = exp_negative(d, hn::Neg(hn::Abs(w)));
  const auto numerator = hn::IfThenElse(hn::Lt(w, hn::Zero(d)), hn::Mul(x, u), x);
  return hn::Div(numerator, hn::Add(hn::Set(d, 1.0f), u));
}

// -t / (2 + t) with t = e^(-2 |x|) - 1: no cancellation at 0.
HWY_INLINE FloatVec tanh(FloatTag d, FloatVec x) {
  const auto t = expm1_negative(d, hn::Mul(hn::Set(d, -2.0f), hn::Abs(x)));
  const auto y = hn::CopySign(hn::Div(t, hn::Add(hn::Set(d, 2.0f), t)), x);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// Phi(-a), the tail of the normal distribution, for a >= 0, as e^(-a^2 / 2) t P(t) with t = 1 / (1 + 0.3 a);
// P has a relative error of 4e-9. a^2 is taken in two parts, since the exponential multiplies its error by
// a^2 / 2.
HWY_INLINE FloatVec normal_tail(FloatTag d, FloatVec a) {
  const hn::RebindToUnsigned<FloatTag> du;
  const auto high = hn::BitCast(d, hn::And(hn::BitCast(du, a), hn::Set(du, 0xfffff000u)));
  const auto half = hn::Set(d, -0.5f);
  const auto square = hn::Mul(hn::Mul(high, high), half);  // exact: 12 bits times 12 bits
  const auto rest = hn::Mul(hn::Mul(hn::Sub(a, high), hn::Add(a, high)), half);
  const auto t = hn::Div(hn::Set(d, 1.0f), hn::MulAdd(a, hn::Set(d, 0.3f), hn::Set(d, 1.0f)));
  auto p = hn::Set(d, -2.062366466438e-2f);
  p = hn::MulAdd(p, t, hn::Set(d, 1.124366723925e-1f));
  p = hn::MulAdd(p, t, hn::Set(d, -2.282160784757e-1f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.917878155023e-1f));
  p = hn::MulAdd(p, t, hn::Set(d, -7.942619083326e-2f));
  p = hn::MulAdd(p, t, hn::Set(d, 9.615826045337e-2f));
  p = hn::MulAdd(p, t, hn::Set(d, 7.838916554340e-2f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.102355258556e-1f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.195718020989e-1f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.196866903973e-1f));
  return hn::Mul(exp_negative(d, square, rest), hn::Mul(p, t));
}

// ln(1 + y) for y in [-1/2, 1], as 2 atanh(s) with s = y / (2 + y): |s| <= 1/3.
HWY_INLINE FloatVec log1p_small(FloatTag d, FloatVec y) {
  const auto s = hn::Div(y, hn::Add(y, hn::Set(d, 2.0f)));
  const auto z = hn::Mul(s, s);
  auto p = hn::Set(d, 1.215045482904e-1f);
  p = hn::MulAdd(p, z, hn::Set(d, 1.071383233243e-1f));
  p = hn::MulAdd(p, z, hn::Set(d, 1.430844207776e-1f));
  p = hn::MulAdd(p, z, hn::Set(d, 1.999943888350e-1f));
  p = hn::MulAdd(p, z, hn::Set(d, 3.333333781085e-1f));
  const auto s2 = hn::Add(s, s);
  return hn::MulAdd(hn::Mul(s2, z), p, s2);
}

// max(x, 0) + ln(1 + e^-|x|)
HWY_INLINE FloatVec softplus(FloatTag d, FloatVec x) {
  const auto u = exp_negative(d, hn::Neg(hn::Abs(x)));
  return hn::Add(hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x), log1p_small(d, u));
}

// min(max(x, 0), 6), and NaN for NaN.
HWY_INLINE FloatVec clamped_relu6(FloatTag d, FloatVec x) {
  const auto six = hn::Set(d, 6.0f);
  return hn::IfThenElse(hn::Lt(six, x), six, hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x));
}

// The functions of Activation on a vector. The relative error is within 4 ulp, of gelu_tanh below 0 within
// 4 + 0.15 |x|^3 ulp (its exponential multiplies the error of its argument). Results under 1.2e-36 in
// magnitude may be 0. At +-inf the limit; NaN for NaN.
template <Activation F>
HWY_INLINE FloatVec activation(FloatTag d, FloatVec x, float negative_slope = kNegativeSlope) {
  const auto zero = hn::Zero(d), low = hn::Set(d, -100.0f);
  if constexpr (F == Activation::sigmoid) return sigmoid(d, x);
  if constexpr (F == Activation::relu) return hn::IfThenZeroElse(hn::Lt(x, zero), x);
  if constexpr (F == Activation::relu2) return hn::IfThenZeroElse(hn::Lt(x, zero), hn::Mul(x, x));
  if constexpr (F == Activation::tanh) return tanh(d, x);
  if constexpr (F == Activation::softplus) return softplus(d, x);
  if constexpr (F == Activation::elu1)
    return hn::IfThenElse(hn::Lt(x, zero), exp_negative(d, hn::Min(x, zero)), hn::Add(x, hn::Set(d, 1.0f)));
  if constexpr (F == Activation::relu6) return clamped_relu6(d, x);
  if constexpr (F == Activation::hardsigmoid || F == Activation::hardswish) {
    const auto y = hn::Mul(clamped_relu6(d, hn::Add(x, hn::Set(d, 3.0f))), hn::Set(d, 1.0f / 6.0f));
    if constexpr (F == Activation::hardsigmoid) return y;
    return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -3.0f)), hn::Mul(x, y));  // also for -inf
  }
  if constexpr (F == Activation::leaky_relu)
    return hn::IfThenElse(hn::Lt(x, zero), hn::Mul(x, hn::Set(d, negative_slope)), x);
  if constexpr (F == Activation::silu || F == Activation::gelu || F == Activation::gelu_tanh)
    x = hn::IfThenElse(hn::Lt(x, low), low, x);  // 0 from here on, also for -inf
  if constexpr (F == Activation::silu) return times_sigmoid(d, x, x);
  if constexpr (F == Activation::gelu_tanh) {  // (1 + tanh z) / 2 = sigmoid(2 z)
    const auto slope = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.0713548162726f), hn::Set(d, 1.59576912160573f));
    return times_sigmoid(d, x, hn::Mul(x, slope));
  }
  if constexpr (F == Activation::gelu) {
    const auto near = hn::Min(x, hn::Set(d, 20.0f));  // x Phi(-x) is 0 beyond
    const auto product = hn::Mul(near, normal_tail(d, hn::Min(hn::Abs(x), hn::Set(d, 20.0f))));
    return hn::IfThenElse(hn::Lt(x, zero), product, hn::Sub(x, product));
  }
  return x;
}

// body(constant) with the function as a compile-time constant: the choice outside the loop.
template <class Body>
HWY_INLINE void with_activation(Activation f, const Body& body) {
  switch (f) {
    case Activation::identity: return body(std::integral_constant<Activation, Activation::identity>());
    case Activation::silu: return body(std::integral_constant<Activation, Activation::silu>());
    case Activation::sigmoid: return body(std::integral_constant<Activation, Activation::sigmoid>());
    case Activation::relu: return body(std::integral_constant<Activation, Activation::relu>());
    case Activation::relu2: return body(std::integral_constant<Activation, Activation::relu2>());
    case Activation::tanh: return body(std::integral_constant<Activation, Activation::tanh>());
    case Activation::gelu: return body(std::integral_constant<Activation, Activation::gelu>());
    case Activation::gelu_tanh: return body(std::integral_constant<Activation, Activation::gelu_tanh>());
    case Activation::softplus: return body(std::integral_constant<Activation, Activation::softplus>());
    case Activation::elu1: return body(std::integral_constant<Activation, Activation::elu1>());
    case Activation::relu6: return body(std::integral_constant<Activation, Activation::relu6>());
    case Activation::hardsigmoid: return body(std::integral_constant<Activation, Activation::hardsigmoid>());
    case Activation::hardswish: return body(std::integral_constant<Activation, Activation::hardswish>());
    case Activation::leaky_relu: return body(std::integral_constant<Activation, Activation::leaky_relu>());
  }
}

// The same with the choice made at each call.
HWY_INLINE FloatVec activation(Activation f, FloatTag d, FloatVec x, float negative_slope = kNegativeSlope) {
  switch (f) {
    case Activation::identity: return x;
    case Activation::silu: return activation<Activation::silu>(d, x);
    case Activation::sigmoid: return activation<Activation::sigmoid>(d, x);
    case Activation::relu: return activation<Activation::relu>(d, x);
    case Activation::relu2: return activation<Activation::relu2>(d, x);
    case Activation::tanh: return activation<Activation::tanh>(d, x);
    case Activation::gelu: return activation<Activation::gelu>(d, x);
    case Activation::gelu_tanh: return activation<Activation::gelu_tanh>(d, x);
    case Activation::softplus: return activation<Activation::softplus>(d, x);
    case Activation::elu1: return activation<Activation::elu1>(d, x);
    case Activation::relu6: return activation<Activation::relu6>(d, x);
    case Activation::hardsigmoid: return activation<Activation::hardsigmoid>(d, x);
    case Activation::hardswish: return activation<Activation::hardswish>(d, x);
    case Activation::leaky_relu: return activation<Activation::leaky_relu>(d, x, negative_slope);
  }
  return x;
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
