// SPDX-License-Identifier: Apache-2.0
// Score functions of the softmax attention engine. A score is a type with
//   FloatVec operator()(FloatTag, const AttentionRow&, IntVec keys, Index left, FloatVec x) const
// from x = scale q k of the consecutive `keys` to their scores; only the first `left` of them are keys of the
// sequence, the results of others are not used. It may give -inf, which hides a key. A score may have
//   bool plain() const
// which says that it changes nothing.
#if defined(ASHLAR_KERNELS_ATTENTION_SCORE_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_ATTENTION_SCORE_INL_HPP_
#undef ASHLAR_KERNELS_ATTENTION_SCORE_INL_HPP_
#else
#define ASHLAR_KERNELS_ATTENTION_SCORE_INL_HPP_
#endif

#include "ashlar/kernels/attention_pattern-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// The product as it is.
struct PlainScore {
  static bool plain() { return true; }
  HWY_INLINE FloatVec operator()(FloatTag, const AttentionRow&, IntVec, Index, FloatVec x) const { return x; }
};

// cap tanh(x / cap)
HWY_INLINE FloatVec soft_cap(FloatTag d, FloatVec x, float cap) {
  const auto e = expm1_negative(d, hn::Mul(hn::Abs(x), hn::Set(d, -2 / cap)));
  const auto tanh = hn::Div(hn::Neg(e), hn::Add(hn::Set(d, 2.0f), e));
  return hn::CopySign(hn::Mul(hn::Set(d, cap), tanh), x);
}

// Every AttentionScore.
struct ComposedScore {
  const AttentionScore& s;

  bool plain() const { return s.soft_cap == 0 && !s.alibi && !s.relative && !s.bias; }
  HWY_INLINE FloatVec operator()(FloatTag d, const AttentionRow& row, IntVec keys, Index left,
                                 FloatVec x) const {
    const IntTag di;
    if (s.soft_cap != 0) x = soft_cap(d, x, s.soft_cap);
    const auto distance = hn::Sub(keys, set_key(di, row.position));
    if (s.alibi) x = hn::NegMulAdd(hn::Set(d, s.alibi(row.head)), hn::ConvertTo(d, hn::Abs(distance)), x);
    if (s.relative) {
      const Index reach = s.relative.shape[1] / 2;
      const auto clamped = hn::Max(hn::Min(distance, set_key(di, reach)), set_key(di, -reach));
      const float* middle = s.relative.at(s.relative.shape[0] == 1 ? 0 : row.head) + reach;
      x = hn::Add(x, hn::GatherIndex(d, middle, clamped));
    }
    if (s.bias) {
      const auto& b = s.bias;
      const float* at = b.at(b.shape[0] == 1 ? 0 : row.sequence, b.shape[1] == 1 ? 0 : row.head,
                             b.shape[2] == 1 ? 0 : row.query);
      x = hn::Add(x, b.shape[3] == 1 ? hn::Set(d, *at) : load_some(d, at + hn::GetLane(keys), left));
    }
    return x;
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
