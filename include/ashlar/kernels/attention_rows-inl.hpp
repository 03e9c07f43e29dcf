// SPDX-License-Identifier: Apache-2.0
// The rows of a tile of the softmax attention engine: what they hold between blocks of keys, and how a row of
// scores becomes probabilities.
#if defined(ASHLAR_KERNELS_ATTENTION_ROWS_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_ATTENTION_ROWS_INL_HPP_
#undef ASHLAR_KERNELS_ATTENTION_ROWS_INL_HPP_
#else
#define ASHLAR_KERNELS_ATTENTION_ROWS_INL_HPP_
#endif

#include <cmath>
#include <functional>
#include <limits>

#include "ashlar/kernels/matmul-inl.hpp"
#include "ashlar/kernels/softmax_attention.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

inline constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The working arrays of a tile, cut from its scratch.
struct TileArrays {
  explicit TileArrays(const AttentionTile& t)
      : rows(t.queries * t.group), q_pitch(t.padded(t.dim)), v_pitch(t.padded(t.value_dim)) {
    constexpr Index kKeys = AttentionTile::kKeys;
    q = t.scratch, scores = q + rows * q_pitch, out = scores + rows * kKeys;
    keys = out + rows * v_pitch, values = keys + kKeys * q_pitch, wide = values + kKeys * v_pitch;
    most = wide + kKeys * HWY_MAX(q_pitch, v_pitch);
    sum = most + rows, moment = sum + rows, least = moment + rows;
    all = least + rows, all_pitch = t.padded(t.rows.end - t.rows.start + kKeys);
  }
  Index rows, q_pitch, v_pitch, all_pitch;
  float *q, *scores, *out;  // [rows, q_pitch], [rows, 64], [rows, v_pitch]
  float *keys, *values;     // a block's, transposed, and as they are
  float* wide;              // rows that are not f32 or do not follow one another
  float *most, *sum;        // the online softmax
  float* moment;            // sum of e^(s - most) (s - most)
  float *least, *all;       // top-k: the least score that stays; all scores of a strip
};

// A row begins with what has a score but no value: its head's sink, and the one of softmax_plus_one. Of a
// call in parts, the first part has them.
inline void start_rows(const AttentionTile& t, const TileArrays& a) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  for (Index r = 0; r < a.rows; ++r) {
    float most = kLowest, sum = 0, moment = 0;
    const auto add = [&](float s) {
      if (s == kLowest) return;
      const float next = HWY_MAX(most, s), fade = most == kLowest ? 0 : std::exp(most - next);
      moment = fade == 0 ? 0 : fade * (moment + (most - next) * sum);
      const float p = std::exp(s - next);
      sum = fade * sum + p, moment += p * (s - next), most = next;
    };
    if (t.softmax() && t.first_part) {
      if (t.sinks != nullptr) add(t.sinks[r % t.group]);
      if (t.normalizer == AttentionNormalizer::softmax_plus_one) add(0);
    }
    a.most[r] = most, a.sum[r] = sum, a.moment[r] = moment, a.least[r] = kLowest;
  }
  for (Index i = 0; i < a.rows * a.v_pitch; i += kLanes) hn::StoreU(hn::Zero(d), d, a.out + i);
  // Masked columns are read before they are written once: any finite number will do.
  for (Index i = 0; i < a.rows * AttentionTile::kKeys; i += kLanes) hn::StoreU(hn::Zero(d), d, a.scores + i);
}

HWY_INLINE void scale_row(float* row, Index n, float by) {
  const FloatTag d;
  for (Index c = 0; c < n; c += static_cast<Index>(HWY_LANES(float)))
    hn::StoreU(hn::Mul(hn::Set(d, by), hn::LoadU(d, row + c)), d, row + c);
}

// e^(s - the new maximum) in place of a row of scores; the row's sums and output follow the maximum.
HWY_INLINE void softmax_row(const AttentionTile& t, const TileArrays& a, Index row) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float)), kKeys = AttentionTile::kKeys;
  float* s = a.scores + row * kKeys;
  const float before = a.most[row];
  auto most = hn::Set(d, before);
  for (Index c = 0; c < kKeys; c += kLanes) most = hn::Max(most, hn::LoadU(d, s + c));
  const float after = max(d, most);
  // Nothing visible so far: every difference is -inf.
  const auto shift = hn::Set(d, after == kLowest ? 0 : after);
  auto total = hn::Zero(d), moment = hn::Zero(d);
  for (Index c = 0; c < kKeys; c += kLanes) {
    const auto x = hn::Sub(hn::LoadU(d, s + c), shift), p = exp_negative(d, x);
    hn::StoreU(p, d, s + c);
    total = hn::Add(total, p);
    if (t.moments) moment = hn::Add(moment, hn::IfThenZeroElse(hn::Eq(p, hn::Zero(d)), hn::Mul(p, x)));
  }
  if (after != before) {
    const float fade = before == kLowest ? 0 : std::exp(before - after);
    if (t.moments) a.moment[row] = fade == 0 ? 0 : fade * (a.moment[row] + (before - after) * a.sum[row]);
    a.most[row] = after, a.sum[row] *= fade;
    scale_row(a.out + row * a.v_pitch, a.v_pitch, fade);
  }
  a.sum[row] += sum(d, total);
  if (t.moments) a.moment[row] += sum(d, moment);
}

// Probabilities, up to the row's divisor, in place of a row of scores.
HWY_INLINE void normalize_row(const AttentionTile& t, const TileArrays& a, Index row) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float)), kKeys = AttentionTile::kKeys;
  float* s = a.scores + row * kKeys;
  if (t.top_k > 0)
    for (Index c = 0; c < kKeys; c += kLanes) {
      const auto x = hn::LoadU(d, s + c);
      hn::StoreU(hn::IfThenElse(hn::Ge(x, hn::Set(d, a.least[row])), x, hn::Set(d, kLowest)), d, s + c);
    }
  if (t.softmax()) return softmax_row(t, a, row);
  for (Index c = 0; c < kKeys; c += kLanes) {
    auto x = hn::LoadU(d, s + c);
    if (t.normalizer == AttentionNormalizer::sigmoid) {
      x = sigmoid(d, x);
    } else {
      x = hn::Max(x, hn::Zero(d));
      if (t.normalizer == AttentionNormalizer::relu_squared) x = hn::Mul(x, x);
    }
    hn::StoreU(x, d, s + c);
  }
}

// What a row gives when it has seen its keys.
struct RowResult {
  float inverse, lse, entropy;

  RowResult(const AttentionTile& t, float most, float sum, float moment) {
    const bool any = sum > 0;
    inverse = !t.softmax() ? 1 : any ? 1 / sum : 0;
    lse = any ? most + std::log(sum) : kLowest;
    entropy = any ? std::log(sum) - moment / sum : 0;
  }
};
inline void write_row(const AttentionTile& t, Index r, const float* out, const RowResult& result) {
  const Index query = t.first + r / t.group, head = r % t.group;
  copy_scaled(out, 0, 1, t.value_dim, result.inverse, t.out + query * t.out_stride + head * t.out_head,
              t.value_dim);
  if (t.lse != nullptr) t.lse[query * t.lse_stride + head * t.lse_head] = result.lse;
  if (t.entropy != nullptr) t.entropy[query * t.entropy_stride + head * t.entropy_head] = result.entropy;
}

inline void finish_rows(const AttentionTile& t, const TileArrays& a) {
  for (Index r = 0; r < a.rows; ++r) {
    if (t.part == nullptr) {
      write_row(t, r, a.out + r * a.v_pitch, RowResult(t, a.most[r], a.sum[r], a.moment[r]));
      continue;
    }
    float* part = t.part + r * AttentionTile::part_pitch(t.value_dim);
    copy_row(a.out + r * a.v_pitch, a.v_pitch, part);
    part[a.v_pitch] = a.most[r], part[a.v_pitch + 1] = a.sum[r], part[a.v_pitch + 2] = a.moment[r];
  }
}

// A tile's rows from its `count` parts, which are `stride` apart behind t.part.
inline void merge_parts(const AttentionTile& t, Index count, Index stride) {
  const FloatTag d;
  const Index pitch = AttentionTile::padded(t.value_dim), rows = t.queries * t.group;
  float* out = t.scratch;
  for (Index r = 0; r < rows; ++r) {
    const float* first = t.part + r * AttentionTile::part_pitch(t.value_dim);
    float most = kLowest, sum = 0, moment = 0;
    for (Index n = 0; n < count; ++n) most = HWY_MAX(most, first[n * stride + pitch]);
    for (Index c = 0; c < pitch; ++c) out[c] = 0;
    for (Index n = 0; n < count; ++n) {
      const float* part = first + n * stride;
      const float its = part[pitch];
      const bool shifted = t.softmax();
      if (shifted && its == kLowest) continue;
      const float fade = shifted ? std::exp(its - most) : 1;
      sum += fade * part[pitch + 1];
      if (shifted) moment += fade * (part[pitch + 2] + (its - most) * part[pitch + 1]);
      for (Index c = 0; c < pitch; c += static_cast<Index>(HWY_LANES(float)))
        hn::StoreU(hn::MulAdd(hn::Set(d, fade), hn::LoadU(d, part + c), hn::LoadU(d, out + c)), d, out + c);
    }
    write_row(t, r, out, RowResult(t, most, sum, moment));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
