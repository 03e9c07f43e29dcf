// SPDX-License-Identifier: Apache-2.0
// Loads that widen, sums and elementary functions on vectors of float, compiled once an instruction set. Include
// after hwy/highway.h, inside no namespace.
#if defined(ASHLAR_KERNELS_SIMD_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_SIMD_INL_HPP_
#undef ASHLAR_KERNELS_SIMD_INL_HPP_
#else
#define ASHLAR_KERNELS_SIMD_INL_HPP_
#endif

#include <cstdint>

#include "ashlar/core/dtype.hpp"
#include "ashlar/core/index.hpp"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

// Vectors of float from f32 or bf16 memory.
HWY_INLINE FloatVec load(FloatTag d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE FloatVec load(FloatTag d, const bf16* p) {
  const hn::Rebind<std::uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  return hn::BitCast(
      d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p)))));
}

// The first n < Lanes(d) elements, zeros after them; reads nothing behind them.
template <class T>
HWY_INLINE FloatVec load_n(FloatTag d, const T* p, Index n) {
  HWY_ALIGN float tail[HWY_MAX_BYTES / sizeof(float)] = {};
  for (Index i = 0; i < n; ++i) tail[i] = static_cast<float>(p[i]);
  return hn::Load(d, tail);
}
HWY_INLINE void store_n(FloatVec v, FloatTag d, float* p, Index n) {
  HWY_ALIGN float tail[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, d, tail);
  for (Index i = 0; i < n; ++i) p[i] = tail[i];
}

HWY_INLINE void copy_row(const float* from, Index n, float* to) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  Index i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
  for (; i < n; ++i) to[i] = from[i];
}
HWY_INLINE void prefetch_row(const float* x, Index n) {
  for (Index i = 0; i < n; i += 16) hwy::Prefetch(x + i);
}

HWY_INLINE float sum(FloatTag d, FloatVec v) { return hn::GetLane(hn::SumOfLanes(d, v)); }
HWY_INLINE float max(FloatTag d, FloatVec v) { return hn::GetLane(hn::MaxOfLanes(d, v)); }

// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r: the two parts of an exponential. ln 2 is split in two so that r is exact.
struct ExpParts {
  FloatVec power;  // n
  FloatVec value;  // e^r
};
HWY_INLINE ExpParts exp_parts(FloatTag d, FloatVec x) {
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693145751953125f), x);
  r = hn::NegMulAdd(n, hn::Set(d, 1.42860682030941723e-6f), r);
  auto p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  return {n, hn::MulAdd(hn::Mul(r, r), p, hn::Add(r, hn::Set(d, 1.0f)))};
}
// 2^n for integers n in [-126, 127].
template <class IntVec>
HWY_INLINE FloatVec exp2_integer(FloatTag d, IntVec n) {
  const hn::RebindToSigned<FloatTag> di;
  return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(n, hn::Set(di, 127))));
}

// e^x, within 1.5 ulp for x in [-87.3, 88.7]; 0 below (no subnormals), so also for -inf; infinity above; NaN for NaN.
HWY_INLINE FloatVec exp(FloatTag d, FloatVec x) {
  const hn::RebindToSigned<FloatTag> di;
  const auto low = hn::Set(d, -87.33654f), high = hn::Set(d, 88.72283f);
  const ExpParts e = exp_parts(d, hn::Min(hn::Max(x, low), high));
  const auto n = hn::ConvertTo(di, e.power);
  const auto half = hn::ShiftRight<1>(n);  // two factors: n may be 128
  auto y = hn::Mul(hn::Mul(e.value, exp2_integer(d, half)), exp2_integer(d, hn::Sub(n, half)));
  y = hn::IfThenZeroElse(hn::Lt(x, low), y);
  y = hn::IfThenElse(hn::Gt(x, high), hn::Inf(d), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// e^x for x <= 0, cheaper: 0 below -87.3, also for -inf; a NaN is not kept.
HWY_INLINE FloatVec exp_negative(FloatTag d, FloatVec x) {
  const hn::RebindToSigned<FloatTag> di;
  const auto low = hn::Set(d, -87.33654f);
  const ExpParts e = exp_parts(d, hn::Max(x, low));
  const auto y = hn::Mul(e.value, exp2_integer(d, hn::ConvertTo(di, e.power)));
  return hn::IfThenZeroElse(hn::Lt(x, low), y);
}

HWY_INLINE FloatVec sigmoid(FloatTag d, FloatVec x) {
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp(d, hn::Neg(x))));
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
