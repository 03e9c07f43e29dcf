// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/rope.hpp"

#include <algorithm>
#include <cmath>

#include "src/core/op_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/rope.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

using DoubleTag = hn::ScalableTag<double>;
using DoubleVec = hn::Vec<DoubleTag>;

// cos a and sin a to about 1e-11, for |a| < 2^29: a = n pi/2 + r with |r| <= pi/4. pi/2 comes in three parts,
// the first two of 24 bits, so that n times each of them is exact.
HWY_INLINE void cos_sin(DoubleTag d, DoubleVec a, DoubleVec& cosine, DoubleVec& sine) {
  const hn::RebindToSigned<DoubleTag> di;
  const auto n = hn::Round(hn::Mul(a, hn::Set(d, 0.63661977236758134308)));
  auto r = hn::NegMulAdd(n, hn::Set(d, 0x1.921fb4p+0), a);
  r = hn::NegMulAdd(n, hn::Set(d, 0x1.4442dp-24), r);
  r = hn::NegMulAdd(n, hn::Set(d, 0x1.8469898cc5170p-48), r);
  const auto z = hn::Mul(r, r);
  auto s = hn::Set(d, 2.718307783357e-06);
  s = hn::MulAdd(s, z, hn::Set(d, -1.983933444778e-04));
  s = hn::MulAdd(s, z, hn::Set(d, 8.333329384682e-03));
  s = hn::MulAdd(s, z, hn::Set(d, -1.666666664162e-01));
  s = hn::MulAdd(hn::Mul(r, z), s, r);
  auto c = hn::Set(d, -2.721020191659e-07);
  c = hn::MulAdd(c, z, hn::Set(d, 2.479951957724e-05));
  c = hn::MulAdd(c, z, hn::Set(d, -1.388888375178e-03));
  c = hn::MulAdd(c, z, hn::Set(d, 4.166666662281e-02));
  c = hn::MulAdd(hn::Mul(z, z), c, hn::NegMulAdd(z, hn::Set(d, 0.5), hn::Set(d, 1.0)));
  // The quadrant n mod 4: odd swaps the two; the cosine is negative in 1 and 2, the sine in 2 and 3. n mod 4
  // is read off the low bits of n + 1.5 * 2^52.
  const auto quadrant = hn::BitCast(di, hn::Add(n, hn::Set(d, 0x1.8p52)));
  const auto one = hn::Set(di, 1), two = hn::Set(di, 2);
  const auto odd = hn::MaskFromVec(hn::BitCast(d, hn::Neg(hn::And(quadrant, one))));
  const auto sign_c = hn::ShiftLeft<62>(hn::And(hn::Add(quadrant, one), two));
  const auto sign_s = hn::ShiftLeft<62>(hn::And(quadrant, two));
  cosine = hn::Xor(hn::IfThenElse(odd, s, c), hn::BitCast(d, sign_c));
  sine = hn::Xor(hn::IfThenElse(odd, c, s), hn::BitCast(d, sign_s));
}

// factor * cos and factor * sin of position * inverse, n of them.
void rope_table(double position, const float* inverse, double factor, float* cosines, float* sines, Index n) {
  const DoubleTag d;
  const hn::Rebind<float, DoubleTag> df;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  HWY_ALIGN float in[HWY_MAX_BYTES / sizeof(double)] = {}, c[HWY_MAX_BYTES / sizeof(double)],
                                     s[HWY_MAX_BYTES / sizeof(double)];
  for (Index i = 0; i < n; i += lanes) {
    const Index count = std::min(lanes, n - i);
    for (Index j = 0; j < count; ++j) in[j] = inverse[i + j];
    const auto a = hn::Mul(hn::Set(d, position), hn::PromoteTo(d, hn::Load(df, in)));
    if (hn::AllTrue(d, hn::Lt(hn::Abs(a), hn::Set(d, 0x1p29)))) {
      DoubleVec cosine, sine;
      cos_sin(d, a, cosine, sine);
      hn::Store(hn::DemoteTo(df, hn::Mul(cosine, hn::Set(d, factor))), df, c);
      hn::Store(hn::DemoteTo(df, hn::Mul(sine, hn::Set(d, factor))), df, s);
    } else {
      for (Index j = 0; j < count; ++j) {
        const double angle = position * static_cast<double>(in[j]);
        c[j] = static_cast<float>(std::cos(angle) * factor);
        s[j] = static_cast<float>(std::sin(angle) * factor);
      }
    }
    for (Index j = 0; j < count; ++j) cosines[i + j] = c[j], sines[i + j] = s[j];
  }
}

// One head, pairs (i, i + n).
void rotate_halves(const float* x, const float* cosines, const float* sines, float* out, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  for (Index i = 0; i < n; i += lanes) {
    const Index left = n - i;
    const bool whole = left >= lanes;
    const auto load_some = [&](const float* p)
                               HWY_ATTR { return whole ? hn::LoadU(d, p) : load_n(d, p, left); };
    const auto x0 = load_some(x + i), x1 = load_some(x + n + i), c = load_some(cosines + i),
               s = load_some(sines + i);
    const auto y0 = hn::NegMulAdd(x1, s, hn::Mul(x0, c)), y1 = hn::MulAdd(x0, s, hn::Mul(x1, c));
    if (whole) {
      hn::StoreU(y0, d, out + i), hn::StoreU(y1, d, out + n + i);
    } else {
      store_n(y0, d, out + i, left), store_n(y1, d, out + n + i, left);
    }
  }
}

// One head of n elements, pairs (2 i, 2 i + 1). The table is spread: cosines c0 c0 c1 c1, sines -s0 s0 -s1
// s1.
void rotate_neighbours(const float* x, const float* cosines, const float* sines, float* out, Index n) {
#if HWY_TARGET == HWY_SCALAR  // one lane: no neighbour to swap with
  for (Index i = 0; i < n; i += 2) {
    const float x0 = x[i], x1 = x[i + 1];
    out[i] = x1 * sines[i] + x0 * cosines[i];
    out[i + 1] = x0 * sines[i + 1] + x1 * cosines[i + 1];
  }
#else
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  for (Index i = 0; i < n; i += lanes) {
    const Index left = n - i;
    const bool whole = left >= lanes;
    const auto load_some = [&](const float* p)
                               HWY_ATTR { return whole ? hn::LoadU(d, p) : load_n(d, p, left); };
    const auto v = load_some(x + i);
    const auto y = hn::MulAdd(hn::Shuffle2301(v), load_some(sines + i), hn::Mul(v, load_some(cosines + i)));
    if (whole)
      hn::StoreU(y, d, out + i);
    else
      store_n(y, d, out + i, left);
  }
#endif
}

// Tokens [begin, end); `table` holds 4 R floats.
void rope_tokens(const Rope& a, Index begin, Index end, float* table) {
  const auto [tokens, heads, dim] = a.x.shape;
  const Index pairs = a.inverse_frequencies.shape[0], turned = 2 * pairs;
  const bool split = a.layout == RopeLayout::half_split;
  float *cosines = table, *sines = table + turned;
  for (Index t = begin; t < end; ++t) {
    rope_table(static_cast<double>(a.positions(t)), a.inverse_frequencies.data, a.factor, cosines, sines,
               pairs);
    if (!split)
      for (Index i = pairs - 1; i >= 0; --i) {
        cosines[2 * i + 1] = cosines[2 * i] = cosines[i];
        sines[2 * i + 1] = sines[i], sines[2 * i] = -sines[2 * i + 1];
      }
    for (Index h = 0; h < heads; ++h) {
      const float* x = a.x.at(t, h);
      float* out = a.out.at(t, h);
      if (split)
        rotate_halves(x, cosines, sines, out, pairs);
      else
        rotate_neighbours(x, cosines, sines, out, turned);
      if (x != out) std::copy(x + turned, x + dim, out + turned);
    }
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
HWY_EXPORT(rope_tokens);
}  // namespace kernels

void rope(const Rope& a, CpuExec& exec) {
  check(a);
  const auto [tokens, heads, dim] = a.x.shape;
  const Index pairs = a.inverse_frequencies.shape[0];
  trace(exec, "rope", a.layout == RopeLayout::half_split ? "half_split" : "interleaved",
        to_string(a.x.shape));
  CpuScratch scratch(exec);
  const Index stride = (4 * pairs + 15) / 16 * 16;
  float* tables = scratch.floats(exec.threads(), stride).data;
  parallel_rows(exec, tokens, heads * dim, [&](Index begin, Index end, int worker) {
    ASHLAR_DISPATCH(exec, rope_tokens)(a, begin, end, tables + worker * stride);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
