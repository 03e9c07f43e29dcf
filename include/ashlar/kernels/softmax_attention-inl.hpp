// SPDX-License-Identifier: Apache-2.0
// The softmax attention engine: a tile of queries visits the key blocks that its pattern names, with an
// online softmax. With m the running row maximum and l the running row sum, a block of scores s adds
//   m' = max(m, max s), p = exp(s - m'), l' = exp(m - m') l + sum p, O' = exp(m - m') O + p V;
// the result is O / l. A pattern is a type with
//   KeyRange keys(Index first, Index last) const      a range that holds every key visible to the positions
//   first..last bool full(Index first, Index last, Index begin, Index end) const     all of [begin, end) is
//   visible to all of them Mask visible(IntTag, Index position, IntVec keys) const              the test of
//   single keys
#if defined(ASHLAR_KERNELS_SOFTMAX_ATTENTION_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_SOFTMAX_ATTENTION_INL_HPP_
#undef ASHLAR_KERNELS_SOFTMAX_ATTENTION_INL_HPP_
#else
#define ASHLAR_KERNELS_SOFTMAX_ATTENTION_INL_HPP_
#endif

#include <limits>

#include "ashlar/kernels/matmul-inl.hpp"
#include "ashlar/kernels/softmax_attention.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

using IntTag = hn::RebindToSigned<FloatTag>;
using IntVec = hn::Vec<IntTag>;

// Keys from `left` before the query's position to `right` after it: causal, sliding window, or everything.
struct BandPattern {
  Index left, right;

  KeyRange keys(Index first, Index last) const { return {first - left, last + right + 1}; }
  bool full(Index first, Index last, Index begin, Index end) const {
    return begin >= last - left && end <= first + right + 1;
  }
  HWY_INLINE hn::Mask<IntTag> visible(IntTag d, Index position, IntVec keys) const {
    const auto low = hn::Set(d, static_cast<std::int32_t>(position - left));
    const auto high = hn::Set(d, static_cast<std::int32_t>(position + right));
    return hn::Not(hn::Or(hn::Lt(keys, low), hn::Gt(keys, high)));
  }
};

// The working arrays of a tile, cut from its scratch.
struct TileArrays {
  explicit TileArrays(const AttentionTile& t)
      : rows(t.queries * t.group), q_pitch(t.padded(t.dim)), v_pitch(t.padded(t.value_dim)) {
    q = t.scratch, scores = q + rows * q_pitch, out = scores + rows * AttentionTile::kKeys;
    most = out + rows * v_pitch, sum = most + rows, keys = sum + rows,
    values = keys + t.dim * AttentionTile::kKeys;
  }
  Index rows, q_pitch, v_pitch;
  float *q, *scores, *out, *most, *sum, *keys, *values;
};

// Turns a row of scores into probabilities relative to the new maximum; rescales the row's sum and output.
template <class Pattern>
HWY_INLINE void softmax_row(const Pattern& pattern, const TileArrays& a, Index row, Index position,
                            Index begin, Index end, bool full) {
  const FloatTag d;
  const IntTag di;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float)), kKeys = AttentionTile::kKeys;
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  float* s = a.scores + row * kKeys;
  auto most = hn::Set(d, a.most[row]);
  for (Index c = 0; c < kKeys; c += kLanes) {
    auto x = hn::LoadU(d, s + c);
    if (!full) {
      const auto keys = hn::Iota(di, static_cast<std::int32_t>(begin + c));
      const auto inside = hn::Lt(keys, hn::Set(di, static_cast<std::int32_t>(end)));
      x = hn::IfThenElse(hn::RebindMask(d, hn::And(inside, pattern.visible(di, position, keys))), x,
                         hn::Set(d, kLowest));
      hn::StoreU(x, d, s + c);
    }
    most = hn::Max(most, x);
  }
  const float after = max(d, most), before = a.most[row];
  // Nothing visible so far: every difference is -inf.
  const auto shift = hn::Set(d, after == kLowest ? 0 : after);
  auto total = hn::Zero(d);
  for (Index c = 0; c < kKeys; c += kLanes) {
    const auto p = exp_negative(d, hn::Sub(hn::LoadU(d, s + c), shift));
    hn::StoreU(p, d, s + c);
    total = hn::Add(total, p);
  }
  if (after != before) {
    const float fade = before == kLowest ? 0 : std::exp(before - after);
    a.most[row] = after;
    a.sum[row] *= fade;
    float* o = a.out + row * a.v_pitch;
    for (Index c = 0; c < a.v_pitch; c += kLanes)
      hn::StoreU(hn::Mul(hn::Set(d, fade), hn::LoadU(d, o + c)), d, o + c);
  }
  a.sum[row] += sum(d, total);
}

// One block of keys [begin, begin + count) for the strip of rows [row, row + rows).
template <class Pattern>
HWY_INLINE void attend_strip(const AttentionTile& t, const Pattern& pattern, const TileArrays& a, Index row,
                             Index rows, Index begin, Index count, const float* values, Index values_pitch) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float)), kKeys = AttentionTile::kKeys;
  const Index first = t.position + t.first + row / t.group,
              last = t.position + t.first + (row + rows - 1) / t.group;
  const KeyRange range = pattern.keys(first, last);
  const Index from = HWY_MAX(range.begin - begin, 0), to = HWY_MIN(range.end - begin, count);
  if (from >= to) return;
  const bool full = count == kKeys && pattern.full(first, last, begin, begin + count);
  // Scores of the columns that some row sees, in whole vectors; the others are masked.
  const Index low = from / kLanes * kLanes, high = hwy::RoundUpTo(to, kLanes);
  float* s = a.scores + row * kKeys;
  multiply_rows<false>(rows, a.q + row * a.q_pitch, a.q_pitch, a.keys + low, kKeys, t.dim, s + low, kKeys,
                       high - low);
  for (Index r = row; r < row + rows; ++r)
    softmax_row(pattern, a, r, t.position + t.first + r / t.group, begin, begin + count, full);
  multiply_rows<true>(rows, s + from, kKeys, values + from * values_pitch, values_pitch, to - from,
                      a.out + row * a.v_pitch, a.v_pitch, a.v_pitch);
}

// The block's keys, transposed: [D, 64], zeros behind `count`. Meanwhile its values and the next block's keys
// are fetched: with few rows a tile waits for memory, and short rows do not set off the hardware's
// prefetchers.
HWY_INLINE void load_keys(const AttentionTile& t, Index begin, Index count, float* to) {
  constexpr Index kKeys = AttentionTile::kKeys;
  for (Index r = 0; r < kKeys; r += 4) {
    for (Index i = begin + r; i < HWY_MIN(begin + r + 4, t.keys); ++i) {
      prefetch_row_far(t.v + i * t.v_stride, t.value_dim);
      if (i + kKeys < t.keys) prefetch_row_far(t.k + (i + kKeys) * t.k_stride, t.dim);
    }
    transpose_4_rows(t.k + (begin + r) * t.k_stride, t.k_stride, HWY_MAX(count - r, 0), t.dim, to + r, kKeys);
  }
}

template <class Pattern>
void attend_tile(const AttentionTile& t, const Pattern& pattern) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float)), kKeys = AttentionTile::kKeys;
  const TileArrays a(t);
  for (Index i = 0; i < t.queries; ++i)
    copy_scaled(t.q + (t.first + i) * t.q_stride, t.q_head, t.group, t.dim, t.scale,
                a.q + i * t.group * a.q_pitch, a.q_pitch);
  for (Index r = 0; r < a.rows; ++r) a.most[r] = -std::numeric_limits<float>::infinity(), a.sum[r] = 0;
  for (Index i = 0; i < a.rows * a.v_pitch; i += kLanes) hn::StoreU(hn::Zero(d), d, a.out + i);
  // Masked columns are read before they are written once: any finite number will do.
  for (Index i = 0; i < a.rows * kKeys; i += kLanes) hn::StoreU(hn::Zero(d), d, a.scores + i);

  const KeyRange range = pattern.keys(t.position + t.first, t.position + t.first + t.queries - 1);
  const Index end = HWY_MIN(range.end, t.keys);
  for (Index begin = HWY_MAX(range.begin, 0) / kKeys * kKeys; begin < end; begin += kKeys) {
    const Index count = HWY_MIN(kKeys, t.keys - begin);
    load_keys(t, begin, count, a.keys);
    const float* values = t.v + begin * t.v_stride;
    Index values_pitch = t.v_stride;
    if (a.rows > 2 * kStripRows || t.value_dim != a.v_pitch) {  // else reading them once in place is cheaper
      copy_scaled(values, t.v_stride, count, t.value_dim, 1, a.values, a.v_pitch);
      values = a.values, values_pitch = a.v_pitch;
    }
    for (Index row = 0; row < a.rows; row += kStripRows)
      attend_strip(t, pattern, a, row, HWY_MIN(kStripRows, a.rows - row), begin, count, values, values_pitch);
  }
  for (Index r = 0; r < a.rows; ++r) {
    const float inverse = a.sum[r] > 0 ? 1 / a.sum[r] : 0;
    float* to = t.out + (t.first + r / t.group) * t.out_stride + r % t.group * t.out_head;
    copy_scaled(a.out + r * a.v_pitch, a.v_pitch, 1, t.value_dim, inverse, to, t.value_dim);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
