// SPDX-License-Identifier: Apache-2.0
// Patterns of the softmax attention engine. A pattern is a type with
//   KeyRange keys(Index first, Index last) const
//     a range that holds every key visible to queries at the positions first to last
//   BlockUse use(Index head, Index heads, Index first, Index last, Index begin, Index end) const
//     how those queries of `heads` heads see the keys [begin, end): absent and full are promises
//   hn::Mask<IntTag> visible(IntTag, const AttentionRow&, IntVec keys) const
//     the test of single keys, in blocks that are neither
// AnyKey has what a pattern need not say.
#if defined(ASHLAR_KERNELS_ATTENTION_PATTERN_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_ATTENTION_PATTERN_INL_HPP_
#undef ASHLAR_KERNELS_ATTENTION_PATTERN_INL_HPP_
#else
#define ASHLAR_KERNELS_ATTENTION_PATTERN_INL_HPP_
#endif

#include <algorithm>

#include "ashlar/kernels/attention_tables.hpp"
#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

using IntTag = hn::RebindToSigned<FloatTag>;
using IntVec = hn::Vec<IntTag>;
using KeyMask = hn::Mask<IntTag>;

HWY_INLINE IntVec set_key(IntTag d, Index j) { return hn::Set(d, static_cast<std::int32_t>(j)); }
HWY_INLINE KeyMask inside(IntTag d, IntVec keys, Index begin, Index end) {
  return hn::And(hn::Gt(keys, set_key(d, begin - 1)), hn::Lt(keys, set_key(d, end)));
}

struct AnyKey {
  KeyRange keys(Index, Index) const { return {0, kNoEnd}; }
  BlockUse use(Index, Index, Index, Index, Index, Index) const { return BlockUse::partial; }
};

// Keys from `left` before the query's position to `right` after it: causal, sliding window, or everything.
struct BandPattern {
  Index left, right;

  KeyRange keys(Index first, Index last) const { return {first - left, last + right + 1}; }
  BlockUse use(Index, Index, Index first, Index last, Index begin, Index end) const {
    if (end <= first - left || begin > last + right) return BlockUse::absent;
    return begin >= last - left && end <= first + right + 1 ? BlockUse::full : BlockUse::partial;
  }
  HWY_INLINE KeyMask visible(IntTag d, const AttentionRow& row, IntVec keys) const {
    return inside(d, keys, row.position - left, row.position + right + 1);
  }
};

// Keys whose distance from the query is a multiple of `step`. A quotient by rounding may be off by little,
// then the remainder is a multiple, and a second one is exact.
HWY_INLINE KeyMask multiple_of(IntTag di, IntVec distance, Index step) {
  const FloatTag d;
  const auto whole = set_key(di, step);
  const auto inverse = hn::Set(d, 1.0f / static_cast<float>(step));
  for (int n = 0; n < 2; ++n) {
    const auto quotient = hn::NearestInt(hn::Mul(hn::ConvertTo(d, distance), inverse));
    distance = hn::Sub(distance, hn::Mul(quotient, whole));
  }
  return hn::Eq(distance, hn::Zero(di));
}

// Every AttentionPattern.
struct ComposedPattern {
  const AttentionTables& t;

  KeyRange keys(Index first, Index last) const { return t.keys(first, last); }
  BlockUse use(Index head, Index heads, Index first, Index last, Index begin, Index end) const {
    return t.use(head, heads, first, last, begin, end);
  }
  HWY_INLINE KeyMask visible(IntTag d, const AttentionRow& row, IntVec keys) const {
    const AttentionPattern& p = t.pattern;
    const Index i = row.position;
    const auto distance = hn::Sub(keys, set_key(d, i));
    auto seen = hn::FirstN(d, 0);
    if (t.local) {
      const KeyRange near = t.near(i);
      seen = inside(d, keys, near.begin, near.end);
      if (p.dilation > 1) seen = hn::And(seen, multiple_of(d, distance, p.dilation));
      if (p.blocks) seen = hn::And(seen, listed(d, row, keys));
    }
    if (p.strided > 0) seen = hn::Or(seen, multiple_of(d, distance, p.strided));
    if (t.is_global != nullptr) {
      const hn::Rebind<std::uint8_t, IntTag> d8;
      const auto marks = hn::PromoteTo(d, hn::LoadU(d8, t.is_global + hn::GetLane(keys)));
      seen = hn::Or(seen, hn::Gt(marks, hn::Zero(d)));
    }
    if (t.global_query(i)) seen = inside(d, keys, 0, kNoEnd);
    return hn::And(seen, inside(d, keys, 0, t.allowed(i)));
  }

 private:
  // Keys of blocks that are listed for the query's: one look a run of keys of one block.
  HWY_INLINE KeyMask listed(IntTag d, const AttentionRow& row, IntVec keys) const {
    constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
    const Index first = hn::GetLane(keys), block = t.pattern.blocks.block;
    auto seen = hn::FirstN(d, 0);
    for (Index j = first; j < first + kLanes; j = (j / block + 1) * block)
      if (t.listed(row.head, row.position / block, j / block, j / block + 1) != 0)
        seen = hn::Or(seen, inside(d, keys, j, (j / block + 1) * block));
    return seen;
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
