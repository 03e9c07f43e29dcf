// SPDX-License-Identifier: Apache-2.0
// Loads that widen, sums and elementary functions on vectors of float, compiled once an instruction set.
// Include after hwy/highway.h, inside no namespace.
#if defined(ASHLAR_KERNELS_SIMD_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_SIMD_INL_HPP_
#undef ASHLAR_KERNELS_SIMD_INL_HPP_
#else
#define ASHLAR_KERNELS_SIMD_INL_HPP_
#endif

#include <cstdint>
#include <type_traits>

#include "ashlar/core/dtype.hpp"
#include "ashlar/core/index.hpp"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

// Before a loop over an array of vectors with constant bounds: unrolled, the array stays in registers.
#undef ASHLAR_UNROLL
#if HWY_COMPILER_CLANG
#define ASHLAR_UNROLL _Pragma("clang loop unroll(full)")
#elif HWY_COMPILER_GCC
#define ASHLAR_UNROLL _Pragma("GCC unroll 16")
#else
#define ASHLAR_UNROLL
#endif

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

// Vectors of float from f32, bf16 or f16 memory.
HWY_INLINE FloatVec load(FloatTag d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE FloatVec load(FloatTag d, const bf16* p) {
  const hn::Rebind<std::uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  return hn::BitCast(
      d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p)))));
}

HWY_INLINE void store(FloatVec v, FloatTag d, float* p) { hn::StoreU(v, d, p); }
// Rounds to nearest even; v is finite or infinite.
HWY_INLINE void store(FloatVec v, FloatTag, bf16* p) {
  const hn::RebindToUnsigned<FloatTag> d32;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<std::uint16_t, FloatTag> d16;
  const auto u = hn::BitCast(d32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(d32, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(u, odd), hn::Set(d32, 0x7fffu)));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, rounded)), d16, reinterpret_cast<std::uint16_t*>(p));
}

// By hand: without F16C, Highway 1.0.3 widens infinity to 65536. The product is exact, also for subnormals.
HWY_INLINE FloatVec load(FloatTag d, const f16* p) {
  const hn::Rebind<std::uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  const auto u = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(u, hn::Set(d32, 0x7fffu)));
  const auto sign = hn::ShiftLeft<16>(hn::And(u, hn::Set(d32, 0x8000u)));
  const auto finite = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f));
  const auto special = hn::BitCast(d, hn::Or(magnitude, hn::Set(d32, 0x7f800000u)));
  const auto y = hn::IfThenElse(hn::Ge(finite, hn::Set(d, 65536.0f)), special, finite);
  return hn::Or(y, hn::BitCast(d, sign));
}

// The first n < Lanes(d) elements, zeros after them; reads nothing behind them.
template <class T>
HWY_INLINE FloatVec load_n(FloatTag d, const T* p, Index n) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2  // masks that suppress faults
  if constexpr (std::is_same_v<T, float>)
    return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(n)), d, p);
#endif
  HWY_ALIGN float tail[HWY_MAX_BYTES / sizeof(float)] = {};
  for (Index i = 0; i < n; ++i) tail[i] = static_cast<float>(p[i]);
  return hn::Load(d, tail);
}
HWY_INLINE void store_n(FloatVec v, FloatTag d, float* p, Index n) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  return hn::BlendedStore(v, hn::FirstN(d, static_cast<std::size_t>(n)), d, p);
#endif
  HWY_ALIGN float tail[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, d, tail);
  for (Index i = 0; i < n; ++i) p[i] = tail[i];
}

// The first n elements, or a whole vector where n is larger.
HWY_INLINE FloatVec load_some(FloatTag d, const float* p, Index n) {
  return n >= static_cast<Index>(hn::Lanes(d)) ? hn::LoadU(d, p) : load_n(d, p, n);
}
HWY_INLINE void store_some(FloatVec v, FloatTag d, float* p, Index n) {
  if (n >= static_cast<Index>(hn::Lanes(d)))
    hn::StoreU(v, d, p);
  else
    store_n(v, d, p, n);
}

HWY_INLINE void copy_row(const float* from, Index n, float* to) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  Index i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
  for (; i < n; ++i) to[i] = from[i];
}
// Into the second-level cache: what is read soon, but not before a first-level cache's worth of other data.
// On its way through short rows the hardware's own prefetchers reach half of the memory's bandwidth with one
// thread; this, all.
HWY_INLINE void prefetch_far(const void* p) {
#if HWY_COMPILER_GCC || HWY_COMPILER_CLANG
  __builtin_prefetch(p, 0, 2);
#else
  hwy::Prefetch(static_cast<const char*>(p));
#endif
}
inline constexpr Index kFarBytes = 32768;
template <class T>
HWY_INLINE void prefetch_row_far(const T* x, Index n) {
  for (Index i = 0; i < n; i += 64 / static_cast<Index>(sizeof(T))) prefetch_far(x + i);
}
HWY_INLINE void prefetch_row(const float* x, Index n) {
  for (Index i = 0; i < n; i += 16) hwy::Prefetch(x + i);
}

HWY_INLINE float sum(FloatTag d, FloatVec v) { return hn::GetLane(hn::SumOfLanes(d, v)); }
HWY_INLINE float max(FloatTag d, FloatVec v) { return hn::GetLane(hn::MaxOfLanes(d, v)); }

// x + rest = n ln 2 + r with |r| <= ln 2 / 2, and e^r - 1: the two parts of an exponential. ln 2 is split in
// two so that the first step is exact; `rest` is a small correction of x, for arguments that one float does
// not hold.
struct ExpParts {
  FloatVec power;      // n
  FloatVec minus_one;  // e^r - 1
};
HWY_INLINE FloatVec exp_reduced(FloatTag d, FloatVec r) {  // e^r - 1
  auto p = hn::Set(d, 1.991659553007e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.394614799898e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.333267784166e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.166626869626e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.666666684493e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.000000078391e-1f));
  return hn::MulAdd(hn::Mul(r, r), p, r);
}
HWY_INLINE ExpParts exp_parts(FloatTag d, FloatVec x) {
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  const auto r = hn::NegMulAdd(n, hn::Set(d, 0.693145751953125f), x);
  return {n, exp_reduced(d, hn::NegMulAdd(n, hn::Set(d, 1.42860682030941723e-6f), r))};
}
HWY_INLINE ExpParts exp_parts(FloatTag d, FloatVec x, FloatVec rest) {
  const auto n = hn::Round(hn::Mul(hn::Add(x, rest), hn::Set(d, 1.44269504088896341f)));
  const auto r = hn::NegMulAdd(n, hn::Set(d, 0.693145751953125f), x);
  return {n, exp_reduced(d, hn::Add(hn::NegMulAdd(n, hn::Set(d, 1.42860682030941723e-6f), r), rest))};
}
// 2^n for integers n in [-126, 127].
template <class IntVec>
HWY_INLINE FloatVec exp2_integer(FloatTag d, IntVec n) {
  const hn::RebindToSigned<FloatTag> di;
  return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(n, hn::Set(di, 127))));
}

// e^x, within 1 ulp for x in [-87.3, 88.7]; 0 below (no subnormals), so also for -inf; infinity above; NaN
// for NaN.
HWY_INLINE FloatVec exp(FloatTag d, FloatVec x) {
  const hn::RebindToSigned<FloatTag> di;
  const auto low = hn::Set(d, -87.33654f), high = hn::Set(d, 88.72283f);
  const ExpParts e = exp_parts(d, hn::Min(hn::Max(x, low), high));
  const auto n = hn::ConvertTo(di, e.power);
  const auto half = hn::ShiftRight<1>(n);  // two factors: n may be 128
  const auto value = hn::Add(e.minus_one, hn::Set(d, 1.0f));
  auto y = hn::Mul(hn::Mul(value, exp2_integer(d, half)), exp2_integer(d, hn::Sub(n, half)));
  y = hn::IfThenZeroElse(hn::Lt(x, low), y);
  y = hn::IfThenElse(hn::Gt(x, high), hn::Inf(d), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// e^(x + rest) for x + rest <= 0, cheaper: within 1 ulp; 0 for x below -87.3, also for -inf; a NaN is not
// kept. Right up to 80, too.
HWY_INLINE FloatVec exp_negative(FloatTag d, FloatVec x, const ExpParts& e) {
  const hn::RebindToSigned<FloatTag> di;
  const auto value = hn::Add(e.minus_one, hn::Set(d, 1.0f));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33654f)),
                            hn::Mul(value, exp2_integer(d, hn::ConvertTo(di, e.power))));
}
HWY_INLINE FloatVec exp_negative(FloatTag d, FloatVec x, FloatVec rest) {
  return exp_negative(d, x, exp_parts(d, hn::Max(x, hn::Set(d, -87.33654f)), rest));
}
HWY_INLINE FloatVec exp_negative(FloatTag d, FloatVec x) {
  // Added to 1.5 * 2^23 + 127, n + 127 is in the low bits: no conversion to integers is needed.
  const hn::RebindToSigned<FloatTag> di;
  const auto low = hn::Set(d, -87.33654f), magic = hn::Set(d, 12583039.0f);
  const auto y = hn::Max(x, low), shifted = hn::MulAdd(y, hn::Set(d, 1.44269504088896341f), magic);
  const auto n = hn::Sub(shifted, magic);
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693145751953125f), y);
  r = exp_reduced(d, hn::NegMulAdd(n, hn::Set(d, 1.42860682030941723e-6f), r));
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, low), hn::Mul(hn::Add(r, hn::Set(d, 1.0f)), power));
}

// 2^x for x <= 0, within 2 ulp; 2^-126 below -126, also for -inf; a NaN is not kept. Of several vectors, step
// by step side by side: one alone would wait for its own results. The cheapest exponential of a softmax,
// whose scores take log2(e) as a factor.
template <int kVectors>
HWY_INLINE void exp2_negative(FloatTag d, FloatVec (&x)[kVectors]) {
  const hn::RebindToSigned<FloatTag> di;
  const auto magic = hn::Set(d, 12582912.0f);  // 1.5 * 2^23: added to it, x is rounded, and in the low bits
  FloatVec n[kVectors], p[kVectors];
  const auto each = [](auto&& f) HWY_ATTR {
    ASHLAR_UNROLL
    for (int v = 0; v < kVectors; ++v) f(v);
  };
  const auto horner = [&](float c) HWY_ATTR {
    each([&](int v) HWY_ATTR { p[v] = hn::MulAdd(p[v], x[v], hn::Set(d, c)); });
  };
  each([&](int v) HWY_ATTR { x[v] = hn::Max(x[v], hn::Set(d, -126.0f)); });
  each([&](int v) HWY_ATTR { n[v] = hn::Add(x[v], magic); });
  each([&](int v) HWY_ATTR { x[v] = hn::Sub(x[v], hn::Sub(n[v], magic)); });
  // Minimax for (2^r - 1) / r on [-1/2, 1/2], relative to 2^r: 2.6e-9.
  each([&](int v) HWY_ATTR { p[v] = hn::Set(d, 1.559467758478e-4f); });
  horner(1.340664390590e-3f);
  horner(9.617692974764e-3f);
  horner(5.550310550993e-2f);
  horner(2.402265278288e-1f);
  horner(6.931472149680e-1f);
  horner(1.0f);
  each([&](int v) HWY_ATTR {
    const auto power = hn::ShiftLeft<23>(hn::BitCast(di, n[v]));
    x[v] = hn::BitCast(d, hn::Add(hn::BitCast(di, p[v]), power));
  });
}

// e^x - 1 for x <= 0, within 1 ulp; -1 below -87.3; a NaN is not kept.
HWY_INLINE FloatVec expm1_negative(FloatTag d, FloatVec x) {
  const hn::RebindToSigned<FloatTag> di;
  const ExpParts e = exp_parts(d, hn::Max(x, hn::Set(d, -87.33654f)));
  const auto scale = exp2_integer(d, hn::ConvertTo(di, e.power));
  return hn::MulAdd(scale, e.minus_one, hn::Sub(scale, hn::Set(d, 1.0f)));
}

// 1 / (1 + e^-x), within 3 ulp; 0 below -87.3; NaN for NaN.
HWY_INLINE FloatVec sigmoid(FloatTag d, FloatVec x) {
  const auto one = hn::Set(d, 1.0f);
  const auto u = exp_negative(d, hn::Neg(hn::Abs(x)));
  const auto y = hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), u, one), hn::Add(one, u));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
