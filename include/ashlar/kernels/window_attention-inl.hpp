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

#include "ashlar/kernels/matmul-inl.hpp"
#include "ashlar/kernels/window_attention.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// The rows of what comes next, a few at a time: the processor has room for only so many lines on their way.
class NextRows {
 public:
  // In about `steps` steps.
  NextRows(const WindowGroup& g, Index steps)
      : lists_{{g.next_k, g.next_k_places, g.keys, g.dim},
               {g.next_v, g.next_v_places, g.keys, g.value_dim},
               {g.next_q, g.next_q_places, g.queries, g.dim},
               {g.next_out, g.next_out_places, g.queries, g.value_dim}} {
    if (g.next_k != nullptr)
      step_ = (2 * (g.keys + g.queries) + steps - 1) / steps;
    else
      list_ = 4;
  }
  void step() {
    for (Index n = 0; n < step_ && list_ < 4; ++n) {
      const List& x = lists_[list_];
      if (x.places[row_] != WindowGroup::kOutside) {
        const float* row = x.data + x.places[row_];
        prefetch_row_far(row, x.dim);
        prefetch_far(row + x.dim - 1);  // rows begin anywhere in a line
      }
      if (++row_ == x.rows) row_ = 0, ++list_;
    }
  }

 private:
  struct List {
    const float* data;
    const Index* places;
    Index rows, dim;
  };
  List lists_[4];
  int list_ = 0;
  Index row_ = 0, step_ = 0;
};

class WindowGroupAttention {
 public:
  explicit WindowGroupAttention(const WindowGroup& g)
      : g_(g), k_pitch_(g.padded(g.dim)), v_pitch_(g.padded(g.value_dim)), next_(g, strips(g)) {
    const Index wide = HWY_MAX(k_pitch_, v_pitch_);
    keys_ = g.scratch, values_ = keys_ + g.keys * k_pitch_;
    q_ = values_ + g.keys * v_pitch_, out_ = q_ + wide * kQueries, scores_ = out_ + wide * kQueries;
    most_ = scores_ + kKeys * kQueries, sum_ = most_ + kQueries, masks_ = sum_ + kQueries;
    zeros_ = masks_ + 4 * kQueries, unused_ = zeros_ + wide;
  }

  void run() {
    for (Index c = 0; c < k_pitch_; ++c) zeros_[c] = 0;
    gather(g_.k, g_.k_places, g_.keys, g_.dim, g_.cosine ? 1 : g_.scale, keys_, k_pitch_);
    if (g_.cosine) normalize_keys();
    gather(g_.v, g_.v_places, g_.keys, g_.value_dim, 1, values_, v_pitch_);
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
  static constexpr float kLog2E = 1.44269504088896341f, kLeast = -1e30f;
  // Vectors of queries that are worked on together, so that they do not wait for each other's results.
  static constexpr int kTogether = static_cast<int>(HWY_MIN(4, kQueries / kLanes));

  // to [count, pitch] = the slots' rows times `scale`, zeros behind them.
  void gather(const float* x, const Index* places, Index count, Index dim, float scale, float* to,
              Index pitch) const {
    const FloatTag d;
    const auto by = hn::Set(d, scale);
    const Index whole = dim / kLanes * kLanes;
    for (Index n = 0; n < count; ++n, to += pitch) {
      const bool inside = places[n] != WindowGroup::kOutside;
      const float* from = x + (inside ? places[n] : 0);
      Index c = 0;
      for (; c < whole && inside; c += kLanes) hn::StoreU(hn::Mul(by, hn::LoadU(d, from + c)), d, to + c);
      if (c < dim && inside) hn::StoreU(hn::Mul(by, load_n(d, from + c, dim - c)), d, to + c), c += kLanes;
      for (; c < pitch; c += kLanes) hn::StoreU(hn::Zero(d), d, to + c);
    }
  }
  // Vectors of cosine scores are divided by max(|x|, 1e-12).
  void normalize_keys() {
    const FloatTag d;
    for (float *row = keys_, *end = row + g_.keys * k_pitch_; row < end; row += k_pitch_) {
      auto squares = hn::Zero(d);
      for (Index c = 0; c < k_pitch_; c += kLanes) {
        const auto x = hn::LoadU(d, row + c);
        squares = hn::MulAdd(x, x, squares);
      }
      const auto norm = hn::Set(d, HWY_MAX(std::sqrt(sum(d, squares)), 1e-12f));
      for (Index c = 0; c < k_pitch_; c += kLanes)
        hn::StoreU(hn::Div(hn::LoadU(d, row + c), norm), d, row + c);
    }
  }
  void normalize_queries() {
    const FloatTag d;
    for (Index c = 0; c < columns_; c += kLanes) {
      auto squares = hn::Zero(d);
      for (Index r = 0; r < g_.dim; ++r) {
        const auto x = hn::LoadU(d, q_ + r * kQueries + c);
        squares = hn::MulAdd(x, x, squares);
      }
      const auto norm = hn::Max(hn::Sqrt(squares), hn::Set(d, 1e-12f));
      for (Index r = 0; r < g_.dim; ++r) {
        float* x = q_ + r * kQueries + c;
        hn::StoreU(hn::Div(hn::LoadU(d, x), norm), d, x);
      }
    }
  }

  // Queries [first_, first_ + count_), transposed; false: none is inside the image.
  bool start() {
    const Index* places = g_.q_places + first_;
    bool any = false;
    for (Index n = 0; n < count_; ++n) any |= places[n] != WindowGroup::kOutside;
    if (!any) return false;
    columns_ = hwy::RoundUpTo(count_, kLanes);
    for (Index n = 0; n < columns_; n += 4) {
      const float* rows[4];
      for (Index i = 0; i < 4; ++i)
        rows[i] = n + i < count_ && places[n + i] != WindowGroup::kOutside ? g_.q + places[n + i] : zeros_;
      transpose_4_rows(rows, g_.dim, q_ + n, kQueries);
    }
    if (g_.cosine) normalize_queries();
    const FloatTag d;
    for (Index c = 0; c < columns_; c += kLanes) {
      hn::StoreU(hn::Set(d, kLeast), d, most_ + c);
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

  // Strips of rows that are multiplied, for the whole group.
  static Index strips(const WindowGroup& g) {
    const Index values = (g.keys + kKeys - 1) / kKeys * (g.value_dim / kStripRows);
    return (g.queries + kQueries - 1) / kQueries * HWY_MAX(1, g.keys / kStripRows + values);
  }
  template <bool kAdd, bool kTurned>
  HWY_INLINE void multiply(Index rows, const float* a, Index a_pitch, const float* b, Index depth, float* c,
                           SumsFrom from = {}) {
    multiply_matrix<kAdd, kTurned>(rows, a, a_pitch, b, kQueries, depth, c, kQueries, columns_, from,
                                   [this]() HWY_ATTR { next_.step(); });
  }

  void attend(Index key, Index keys) {
    score(key, keys);
    if (g_.regions != nullptr) add_mask(key, keys);
    each_column([&](Index c, auto vectors) HWY_ATTR { softmax<vectors.value>(c, key, keys); });
    const float* values = values_ + key * v_pitch_;
    if (key == 0)
      multiply<false, true>(g_.value_dim, values, v_pitch_, scores_, keys, out_);
    else
      multiply<true, true>(g_.value_dim, values, v_pitch_, scores_, keys, out_);
  }

  // Scores start from the bias, where whole vectors of it can be read. Not cosines: they take the temperature
  // first, and can be so large then, as can their bias, that one rounding of the sum is better than many.
  void score(Index key, Index keys) {
    const float* k = keys_ + key * k_pitch_;
    const float* bias = g_.bias != nullptr ? g_.bias + key * g_.bias_pitch + first_ : nullptr;
    if (bias != nullptr && columns_ == count_ && !g_.cosine)
      return multiply<true, false>(keys, k, k_pitch_, q_, g_.dim, scores_, {bias, g_.bias_pitch});
    multiply<false, false>(keys, k, k_pitch_, q_, g_.dim, scores_);
    if (bias == nullptr && !g_.cosine) return;
    const FloatTag d;
    const auto by = hn::Set(d, g_.cosine ? g_.scale : 1);
    for (Index m = 0; m < keys; ++m)
      for (Index c = 0; c < columns_; c += kLanes) {
        float* s = scores_ + m * kQueries + c;
        const auto add =
            bias != nullptr ? load_some(d, bias + m * g_.bias_pitch + c, count_ - c) : hn::Zero(d);
        hn::StoreU(hn::MulAdd(by, hn::LoadU(d, s), add), d, s);
      }
  }

  void add_mask(Index key, Index keys) {
    const FloatTag d;
    for (Index m = 0; m < keys; ++m)
      for (Index c = 0; c < columns_; c += kLanes) {
        float* s = scores_ + m * kQueries + c;
        hn::StoreU(hn::Add(hn::LoadU(d, s), hn::LoadU(d, masks_ + g_.regions[key + m] * kQueries + c)), d, s);
      }
  }

  // Probabilities, up to their sum, in place of the scores of `kVectors` vectors of queries.
  template <int kVectors>
  HWY_INLINE void softmax(Index c, Index key, Index keys) {
    const FloatTag d;
    FloatVec most[kVectors], sums[kVectors];
    float* s = scores_ + c;
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) most[n] = hn::LoadU(d, most_ + c + n * kLanes);
    for (Index m = 0; m < keys; ++m) {
      ASHLAR_UNROLL
      for (int n = 0; n < kVectors; ++n)
        most[n] = hn::Max(most[n], hn::LoadU(d, s + m * kQueries + n * kLanes));
    }
    FloatVec shift[kVectors];
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) {
      const Index at = c + n * kLanes;
      shift[n] = hn::Mul(hn::Set(d, -kLog2E), most[n]);
      sums[n] = hn::LoadU(d, sum_ + at);
      if (key != 0) sums[n] = hn::Mul(sums[n], fade(at, shift[n]));
      hn::StoreU(most[n], d, most_ + at);
    }
    for (Index m = 0; m < keys; ++m, s += kQueries) {
      FloatVec p[kVectors];
      ASHLAR_UNROLL
      for (int n = 0; n < kVectors; ++n)
        p[n] = hn::MulAdd(hn::LoadU(d, s + n * kLanes), hn::Set(d, kLog2E), shift[n]);
      exp2_negative(d, p);
      ASHLAR_UNROLL
      for (int n = 0; n < kVectors; ++n) {
        hn::StoreU(p[n], d, s + n * kLanes);
        sums[n] = hn::Add(sums[n], p[n]);
      }
    }
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) hn::StoreU(sums[n], d, sum_ + c + n * kLanes);
  }
  // Makes the results of a vector of queries relative to new maxima; `shift` is -log2(e) times those. The
  // factor.
  HWY_INLINE FloatVec fade(Index c, FloatVec shift) {
    const FloatTag d;
    FloatVec by[1] = {hn::Sub(shift, hn::Mul(hn::Set(d, -kLog2E), hn::LoadU(d, most_ + c)))};
    exp2_negative(d, by);
    for (float *y = out_ + c, *end = y + g_.value_dim * kQueries; y < end; y += kQueries)
      hn::StoreU(hn::Mul(by[0], hn::LoadU(d, y)), d, y);
    return by[0];
  }

  // The results of the block to where their pixels are.
  void finish() {
    const FloatTag d;
    for (Index c = 0; c < columns_; c += kLanes)
      hn::StoreU(hn::Div(hn::Set(d, 1), hn::LoadU(d, sum_ + c)), d, sum_ + c);
    const Index* places = g_.out_places + first_;
    for (Index n = 0; n < count_; n += 4) {
      float* rows[4];
      for (Index i = 0; i < 4; ++i)
        rows[i] = n + i < count_ && places[n + i] != WindowGroup::kOutside ? g_.out + places[n + i] : unused_;
      transpose_4_columns(out_ + n, kQueries, g_.value_dim, sum_ + n, rows);
    }
  }

  const WindowGroup& g_;
  const Index k_pitch_, v_pitch_;
  float *keys_, *values_;        // [keys, pitch]
  float *q_, *out_, *scores_;    // [dim, 64], [value_dim, 64], [288, 64]
  float *most_, *sum_, *masks_;  // [64], [64], [4, 64]
  float *zeros_, *unused_;       // rows outside the image, of queries and of results
  NextRows next_;
  Index first_ = 0, count_ = 0, columns_ = 0;
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
