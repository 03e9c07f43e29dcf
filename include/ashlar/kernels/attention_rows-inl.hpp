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
    constexpr Index kKeys = AttentionTile::kKeys, kLanes = static_cast<Index>(HWY_LANES(float));
    q = t.scratch, scores = q + rows * q_pitch, out = scores + rows * kKeys;
    keys = out + rows * v_pitch, values = keys + kKeys * q_pitch, wide = values + kKeys * v_pitch;
    most = wide + kKeys * HWY_MAX(q_pitch, v_pitch);
    least = most + rows, sum = least + rows;
    moment = sum + rows * kLanes, all = moment + rows * kLanes,
    all_pitch = t.padded(t.rows.end - t.rows.start + kKeys);
  }
  Index rows, q_pitch, v_pitch, all_pitch;
  float *q, *scores, *out;  // [rows, q_pitch], [rows, 64], [rows, v_pitch]
  float *keys, *values;     // a block's, transposed, and as they are
  float* wide;              // rows that are not f32 or do not follow one another
  float *most, *sum;        // the online softmax: what scores are relative to; sums, one a lane
  float* moment;            // sums of e^(s - most) (s - most), one a lane
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
    a.most[r] = most, a.least[r] = kLowest;
    for (Index n = 0; n < kLanes; ++n) a.sum[r * kLanes + n] = a.moment[r * kLanes + n] = 0;
    a.sum[r * kLanes] = sum, a.moment[r * kLanes] = moment;
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

// Scores may be so much larger than what they are relative to before that follows them: e^8 times a sum is no
// danger, and most blocks then change nothing but the sums.
inline constexpr float kSlack = 8;

// Makes `next` what the row's scores are relative to.
inline HWY_NOINLINE void raise_row(const AttentionTile& t, const TileArrays& a, Index row, float next) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  const float before = a.most[row], fade = before == kLowest ? 0 : std::exp(before - next);
  float *sums = a.sum + row * kLanes, *moments = a.moment + row * kLanes;
  a.most[row] = next;
  const auto sum = hn::LoadU(d, sums), by = hn::Set(d, fade);
  if (t.moments) {
    const auto moved = hn::MulAdd(hn::Set(d, before - next), sum, hn::LoadU(d, moments));
    hn::StoreU(fade == 0 ? hn::Zero(d) : hn::Mul(by, moved), d, moments);
  }
  hn::StoreU(hn::Mul(by, sum), d, sums);
  scale_row(a.out + row * a.v_pitch, a.v_pitch, fade);
}

// e^(s - most) in place of a row's scores in the columns [begin, end), whole vectors.
HWY_INLINE void softmax_row(const AttentionTile& t, const TileArrays& a, Index row, Index begin, Index end) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  float *s = a.scores + row * AttentionTile::kKeys, *sums = a.sum + row * kLanes;
  auto top = hn::LoadU(d, s + begin);
  for (Index c = begin + kLanes; c < end; c += kLanes) top = hn::Max(top, hn::LoadU(d, s + c));
  if (!hn::AllFalse(d, hn::Gt(top, hn::Set(d, a.most[row] + kSlack)))) raise_row(t, a, row, max(d, top));
  // Nothing visible so far: every difference is -inf.
  const auto shift = hn::Set(d, a.most[row] == kLowest ? 0 : a.most[row]);
  auto total = hn::LoadU(d, sums), moment = hn::Zero(d);
  for (Index c = begin; c < end; c += kLanes) {
    const auto x = hn::Sub(hn::LoadU(d, s + c), shift), p = exp_negative(d, x);
    hn::StoreU(p, d, s + c);
    total = hn::Add(total, p);
    if (t.moments) moment = hn::Add(moment, hn::IfThenZeroElse(hn::Eq(p, hn::Zero(d)), hn::Mul(p, x)));
  }
  hn::StoreU(total, d, sums);
  if (t.moments)
    hn::StoreU(hn::Add(moment, hn::LoadU(d, a.moment + row * kLanes)), d, a.moment + row * kLanes);
}

// Probabilities, up to the row's divisor, in place of a row's scores in the columns [begin, end).
HWY_INLINE void normalize_row(const AttentionTile& t, const TileArrays& a, Index row, Index begin,
                              Index end) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  float* s = a.scores + row * AttentionTile::kKeys;
  if (t.top_k > 0)
    for (Index c = begin; c < end; c += kLanes) {
      const auto x = hn::LoadU(d, s + c);
      hn::StoreU(hn::IfThenElse(hn::Ge(x, hn::Set(d, a.least[row])), x, hn::Set(d, kLowest)), d, s + c);
    }
  if (t.softmax()) return softmax_row(t, a, row, begin, end);
  for (Index c = begin; c < end; c += kLanes) {
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
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  for (Index r = 0; r < a.rows; ++r) {
    const float total = sum(d, hn::LoadU(d, a.sum + r * kLanes)),
                moment = sum(d, hn::LoadU(d, a.moment + r * kLanes));
    if (t.part == nullptr) {
      write_row(t, r, a.out + r * a.v_pitch, RowResult(t, a.most[r], total, moment));
      continue;
    }
    float* part = t.part + r * AttentionTile::part_pitch(t.value_dim);
    copy_row(a.out + r * a.v_pitch, a.v_pitch, part);
    part[a.v_pitch] = a.most[r], part[a.v_pitch + 1] = total, part[a.v_pitch + 2] = moment;
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
