// SPDX-License-Identifier: Apache-2.0
// The window attention engine: one head of one group. Queries lie along the lanes: a block of 64 queries has
// its scores S^T = K Q^T and its results O^T = V^T P^T as matrices of 64 columns, so that no head size leaves
// lanes empty, a row's maximum and sum are those of a lane, and keys and values are read by element, as they
// are gathered. Blocks of keys follow one another as in softmax_attention-inl.hpp: with m the maxima so far,
//   m' = max(m, max S^T),  P^T = exp(S^T - m'),  l' = exp(m - m') l + sum P^T,
//   O'^T = exp(m - m') O^T + V^T P^T,
// and the result is O / l.
#if defined(ASHLAR_KERNELS_WINDOW_ATTENTION_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_WINDOW_ATTENTION_INL_HPP_
#undef ASHLAR_KERNELS_WINDOW_ATTENTION_INL_HPP_
#else
#define ASHLAR_KERNELS_WINDOW_ATTENTION_INL_HPP_
#endif

#include <cmath>
#include <limits>

#include "ashlar/kernels/matmul-inl.hpp"
#include "ashlar/kernels/window_attention.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

class WindowGroupAttention {
 public:
  explicit WindowGroupAttention(const WindowGroup& g)
      : g_(g), k_pitch_(g.padded(g.dim)), v_pitch_(g.padded(g.value_dim)) {
    const Index wide = HWY_MAX(k_pitch_, v_pitch_);
    keys_ = g.scratch, values_ = keys_ + g.keys * k_pitch_;
    q_ = values_ + g.keys * v_pitch_, out_ = q_ + wide * kQueries, scores_ = out_ + wide * kQueries;
    most_ = scores_ + kKeys * kQueries, sum_ = most_ + kQueries, masks_ = sum_ + kQueries;
    rows_ = masks_ + 4 * kQueries;
  }

  void run() {
    gather(g_.k, g_.k_places, g_.keys, g_.dim, 1, g_.cosine, keys_, k_pitch_);
    gather(g_.v, g_.v_places, g_.keys, g_.value_dim, 1, false, values_, v_pitch_);
    for (first_ = 0; first_ < g_.queries; first_ += kQueries) {
      count_ = HWY_MIN(kQueries, g_.queries - first_);
      if (!start()) continue;
      for (Index key = 0; key < g_.keys; key += kKeys) attend(key, HWY_MIN(kKeys, g_.keys - key));
      finish();
    }
  }

 private:
  static constexpr Index kLanes = static_cast<Index>(HWY_LANES(float)), kQueries = WindowGroup::kQueries,
                         kKeys = WindowGroup::kKeys;
  // Vectors of queries that are worked on together, so that they do not wait for each other's results.
  static constexpr int kTogether = static_cast<int>(HWY_MIN(4, kQueries / kLanes));

  // to [count, pitch] = the slots' rows times `scale` (and divided by their norms), zeros behind them.
  void gather(const float* x, const Index* places, Index count, Index dim, float scale, bool normalized,
              float* to, Index pitch) const {
    const FloatTag d;
    for (Index n = 0; n < count; ++n, to += pitch) {
      if (places[n] == WindowGroup::kOutside) {
        for (Index c = 0; c < pitch; c += kLanes) hn::StoreU(hn::Zero(d), d, to + c);
        continue;
      }
      const float* from = x + places[n];
      if (g_.fetch_next) prefetch_row_far(from + dim, dim);
      auto squares = hn::Zero(d);
      for (Index c = 0; c < pitch; c += kLanes) {
        const auto y = c < dim ? load_some(d, from + c, dim - c) : hn::Zero(d);
        squares = hn::MulAdd(y, y, squares);
        hn::StoreU(hn::Mul(hn::Set(d, scale), y), d, to + c);
      }
      if (!normalized) continue;
      const auto by = hn::Set(d, 1 / HWY_MAX(std::sqrt(sum(d, squares)), 1e-12f));
      for (Index c = 0; c < pitch; c += kLanes) hn::StoreU(hn::Mul(by, hn::LoadU(d, to + c)), d, to + c);
    }
  }

  // Queries [first_, first_ + count_), transposed; false: none is inside the image.
  bool start() {
    const Index* places = g_.q_places + first_;
    bool any = false;
    for (Index n = 0; n < count_; ++n) any |= places[n] != WindowGroup::kOutside;
    if (!any) return false;
    columns_ = hwy::RoundUpTo(count_, kLanes);
    gather(g_.q, places, count_, g_.dim, g_.scale, g_.cosine, rows_, k_pitch_);
    for (Index n = 0; n < columns_; n += 4)
      transpose_4_rows(rows_ + n * k_pitch_, k_pitch_, HWY_MAX(0, HWY_MIN(4, count_ - n)), g_.dim, q_ + n,
                       kQueries);
    const FloatTag d;
    for (Index c = 0; c < columns_; c += kLanes) {
      hn::StoreU(hn::Set(d, std::numeric_limits<float>::lowest()), d, most_ + c);
      hn::StoreU(hn::Zero(d), d, sum_ + c);
    }
    for (Index r = 0; r < 4 && g_.regions != nullptr; ++r)
      for (Index c = 0; c < columns_; ++c)
        masks_[r * kQueries + c] = c < count_ && g_.regions[first_ + c] != r ? g_.mask : 0;
    return true;
  }

  // f(column, vectors) for the columns of the block, kTogether vectors at once where there are so many.
  template <class F>
  HWY_INLINE void each_column(F&& f) const {
    Index c = 0;
    for (; c + kTogether * kLanes <= columns_; c += kTogether * kLanes)
      f(c, std::integral_constant<int, kTogether>());
    for (; c < columns_; c += kLanes) f(c, std::integral_constant<int, 1>());
  }

  void attend(Index key, Index keys) {
    multiply_matrix<false, false>(keys, keys_ + key * k_pitch_, k_pitch_, q_, kQueries, g_.dim, scores_,
                                  kQueries, columns_);
    each_column([&](Index c, auto vectors) HWY_ATTR { softmax<vectors.value>(c, key, keys); });
    const float* values = values_ + key * v_pitch_;
    if (key == 0)
      multiply_matrix<false, true>(g_.value_dim, values, v_pitch_, scores_, kQueries, keys, out_, kQueries,
                                   columns_);
    else
      multiply_matrix<true, true>(g_.value_dim, values, v_pitch_, scores_, kQueries, keys, out_, kQueries,
                                  columns_);
  }

  // Probabilities, up to their sum, in place of the scores of `kVectors` vectors of queries.
  template <int kVectors>
  HWY_INLINE void softmax(Index c, Index key, Index keys) {
    const FloatTag d;
    FloatVec most[kVectors];
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) most[n] = hn::LoadU(d, most_ + c + n * kLanes);
    if (g_.regions != nullptr)
      add_bias<kVectors, true>(c, key, keys, most);
    else
      add_bias<kVectors, false>(c, key, keys, most);
    FloatVec sums[kVectors];
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) {
      sums[n] = hn::LoadU(d, sum_ + c + n * kLanes);
      if (key != 0) {
        const auto fade = exp_negative(d, hn::Sub(hn::LoadU(d, most_ + c + n * kLanes), most[n]));
        sums[n] = hn::Mul(fade, sums[n]);
        for (Index r = 0; r < g_.value_dim; ++r) {
          float* y = out_ + r * kQueries + c + n * kLanes;
          hn::StoreU(hn::Mul(fade, hn::LoadU(d, y)), d, y);
        }
      }
      hn::StoreU(most[n], d, most_ + c + n * kLanes);
    }
    float* s = scores_ + c;
    for (Index m = 0; m < keys; ++m, s += kQueries) {
      ASHLAR_UNROLL
      for (int n = 0; n < kVectors; ++n) {
        const auto p = exp_negative(d, hn::Sub(hn::LoadU(d, s + n * kLanes), most[n]));
        hn::StoreU(p, d, s + n * kLanes);
        sums[n] = hn::Add(sums[n], p);
      }
    }
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) hn::StoreU(sums[n], d, sum_ + c + n * kLanes);
  }

  // Adds bias and mask to the scores, and follows their maxima.
  template <int kVectors, bool kMasked>
  HWY_INLINE void add_bias(Index c, Index key, Index keys, FloatVec (&most)[kVectors]) {
    const FloatTag d;
    float* s = scores_ + c;
    const Index left = count_ - c;  // queries from here on
    const float* bias = g_.bias != nullptr ? g_.bias + key * g_.bias_pitch + first_ + c : nullptr;
    for (Index m = 0; m < keys; ++m, s += kQueries) {
      const float* mask = kMasked ? masks_ + g_.regions[key + m] * kQueries + c : nullptr;
      ASHLAR_UNROLL
      for (int n = 0; n < kVectors; ++n) {
        auto x = hn::LoadU(d, s + n * kLanes);
        if (bias != nullptr) x = hn::Add(x, load_some(d, bias + n * kLanes, left - n * kLanes));
        if (kMasked) x = hn::Add(x, hn::LoadU(d, mask + n * kLanes));
        hn::StoreU(x, d, s + n * kLanes);
        most[n] = hn::Max(most[n], x);
      }
      if (bias != nullptr) bias += g_.bias_pitch;
    }
  }

  // The results of the block, transposed, to where their pixels are.
  void finish() {
    const FloatTag d;
    for (Index c = 0; c < columns_; c += kLanes)
      hn::StoreU(hn::Div(hn::Set(d, 1), hn::LoadU(d, sum_ + c)), d, sum_ + c);
    for (Index r = 0; r < g_.value_dim; ++r)
      for (Index c = 0; c < columns_; c += kLanes) {
        float* y = out_ + r * kQueries + c;
        hn::StoreU(hn::Mul(hn::LoadU(d, y), hn::LoadU(d, sum_ + c)), d, y);
      }
    for (Index r = 0; r < g_.value_dim; r += 4)
      transpose_4_rows(out_ + r * kQueries, kQueries, HWY_MIN(4, g_.value_dim - r), count_, rows_ + r,
                       v_pitch_);
    for (Index n = 0; n < count_; ++n) {
      const Index place = g_.out_places[first_ + n];
      if (place == WindowGroup::kOutside) continue;
      for (Index c = 0; c < g_.value_dim; c += kLanes)
        store_some(hn::LoadU(d, rows_ + n * v_pitch_ + c), d, g_.out + place + c, g_.value_dim - c);
    }
  }

  const WindowGroup& g_;
  const Index k_pitch_, v_pitch_;
  float *keys_, *values_;        // [keys, pitch]
  float *q_, *out_, *scores_;    // [dim, 64], [value_dim, 64], [96, 64]
  float *most_, *sum_, *masks_;  // [64], [64], [4, 64]
  float* rows_;                  // [64, pitch]
  Index first_ = 0, count_ = 0, columns_ = 0;
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
