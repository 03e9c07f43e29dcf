// SPDX-License-Identifier: Apache-2.0
// The softmax attention engine: a tile of queries visits the key blocks that its pattern names, with an
// online softmax. With m the running row maximum and l the running row sum, a block of scores s adds
//   m' = max(m, max s),  p = exp(s - m'),  l' = exp(m - m') l + sum p,  O' = exp(m - m') O + p V;
// the result is O / l. Other normalisers have neither m nor l. Pattern and score are policies, compiled into
// the loops: see attention_pattern-inl.hpp and attention_score-inl.hpp.
#if defined(ASHLAR_KERNELS_SOFTMAX_ATTENTION_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_SOFTMAX_ATTENTION_INL_HPP_
#undef ASHLAR_KERNELS_SOFTMAX_ATTENTION_INL_HPP_
#else
#define ASHLAR_KERNELS_SOFTMAX_ATTENTION_INL_HPP_
#endif

#include <type_traits>

#include "ashlar/kernels/attention_rows-inl.hpp"
#include "ashlar/kernels/attention_score-inl.hpp"
#include "ashlar/kernels/matmul-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// One call's tile with its policies; Kv is the storage type of keys and values.
template <class Pattern, class Score, class Kv>
class TileAttention {
 public:
  TileAttention(const AttentionTile& t, const Pattern& pattern, const Score& score)
      : t_(t), pattern_(pattern), score_(score), a_(t) {
    first_ = t.position + t.first, last_ = first_ + t.queries - 1;
  }

  void run() {
    load_queries();
    start_rows(t_, a_);
    if (t_.top_k > 0)
      for (Index row = 0; row < a_.rows; row += kStripRows) choose_strip(row);
    visit([&](const Block& block) {
      if (!few()) load_keys(block);
      Values values = load_values(block);
      const Index strip = few() ? a_.rows : kStripRows;
      for (Index row = 0; row < a_.rows; row += strip) {
        const Index rows = HWY_MIN(strip, a_.rows - row);
        if (!few()) fetch_block(block.next, row, row + rows);
        attend_strip(row, rows, block, values);
      }
    });
    finish_rows(t_, a_);
  }

 private:
  static constexpr Index kLanes = static_cast<Index>(HWY_LANES(float)), kKeys = AttentionTile::kKeys;
  // Keys [begin, begin + count), and where the block after it begins.
  struct Block {
    Index begin, count, next;
  };
  struct Values {
    const float* rows;  // copies, v_pitch apart; null: in place
    bool checked = false, finite = true;
  };

  // Keys are read in place, in a few long rows, where more would have them transposed.
  bool few() const { return a_.rows <= AttentionTile::kFewRows; }
  const Kv* key_row(Index j) const {
    return static_cast<const Kv*>(t_.rows.k) + t_.rows.row(j) * t_.rows.k_stride;
  }
  const Kv* value_row(Index j) const {
    return static_cast<const Kv*>(t_.rows.v) + t_.rows.row(j) * t_.rows.v_stride;
  }

  void load_queries() {
    for (Index i = 0; i < t_.queries; ++i) {
      float* to = a_.q + i * t_.group * a_.q_pitch;
      const Index at = (t_.first + i) * t_.q_stride;
      if (t_.narrow_q)
        copy_scaled(static_cast<const bf16*>(t_.q) + at, t_.q_head, t_.group, t_.dim, t_.scale, to,
                    a_.q_pitch);
      else
        copy_scaled(static_cast<const float*>(t_.q) + at, t_.q_head, t_.group, t_.dim, t_.scale, to,
                    a_.q_pitch);
    }
  }

  // f(block) for the blocks of keys that some query of the tile sees.
  template <class F>
  void visit(F&& f) const {
    const KeyRange range = pattern_.keys(first_, last_);
    Index begin = HWY_MAX(range.begin, t_.rows.start), end = HWY_MIN(range.end, t_.rows.end);
    if (t_.part_begin < t_.part_end) begin = HWY_MAX(begin, t_.part_begin), end = HWY_MIN(end, t_.part_end);
    // Blocks begin at multiples of their size, but for the first.
    begin = present(HWY_MAX(begin / kKeys * kKeys, t_.rows.start), end);
    while (begin < end) {
      const Index next = present((begin / kKeys + 1) * kKeys, end);
      f({begin, block_end(begin) - begin, next});
      begin = next;
    }
  }
  Index block_end(Index begin) const { return HWY_MIN((begin / kKeys + 1) * kKeys, t_.rows.end); }
  Index present(Index begin, Index end) const {
    while (begin < end &&
           pattern_.use(t_.head, t_.group, first_, last_, begin, block_end(begin)) == BlockUse::absent)
      begin = (begin / kKeys + 1) * kKeys;
    return begin;
  }

  // The block's keys, transposed: [D, 64], zeros behind `count`.
  void load_keys(const Block& block) {
    const auto [begin, count, next] = block;
    const float* from = nullptr;
    Index stride = t_.rows.k_stride;
    if constexpr (std::is_same_v<Kv, float>)
      if (t_.rows.run(begin, count) == count) from = key_row(begin);
    if (from == nullptr) {
      for (Index i = 0; i < count; ++i) copy_row_of(key_row(begin + i), t_.dim, a_.q_pitch, a_.wide, i);
      from = a_.wide, stride = a_.q_pitch;
    }
    constexpr Index kLine = HWY_MAX(kLanes, 16);  // whole cache lines of the result at once
    for (Index line = 0; line < kKeys; line += kLine)
      for (Index c = 0; c < t_.dim; c += 4)
        for (Index r = line; r < line + kLine; r += kLanes)
          transpose_rows<kLanes>(from + r * stride + c, stride, HWY_MAX(count - r, 0), HWY_MIN(4, t_.dim - c),
                                 a_.keys + c * kKeys + r, kKeys);
  }
  static void copy_row_of(const Kv* from, Index columns, Index pitch, float* to, Index i) {
    copy_scaled(from, 0, 1, columns, 1, to + i * pitch, pitch);
  }
  // Fetches of the block at `begin` the share of the tile's rows [from, to), a little at a time: short rows
  // do not set off the hardware's prefetchers, and many fetches at once wait for one another.
  HWY_INLINE void fetch_block(Index begin, Index from, Index to) const {
    const Index end = HWY_MIN(begin + kKeys * to / a_.rows, t_.rows.end);
    for (Index j = begin + kKeys * from / a_.rows; j < end; ++j) {
      prefetch_row_far(key_row(j), t_.dim);
      prefetch_row_far(value_row(j), t_.value_dim);
    }
  }
  // Rows of `pitch` elements that are read in place are fetched so many before.
  static Index lead(Index pitch) {
    return HWY_MAX(1, 16384 / static_cast<Index>(sizeof(Kv)) / HWY_MAX(1, pitch));
  }
  // What is fetched while rows [i, i + n) of the block are read: rows of it or, behind its end, of the next.
  // Shortens n to those that are as far from theirs as row i.
  template <class Row>
  FetchAhead ahead(const Block& block, Index i, Index& n, Index pitch, const Row& row) const {
    const Index inside = lead(pitch) * pitch, turn = block.count - lead(pitch);
    const Index beyond = block.next >= t_.rows.end ? 0 : row(block.next) - row(block.begin) - turn * pitch;
    if (i >= turn) return {beyond};
    if (beyond != inside) n = HWY_MIN(n, turn - i);
    return {inside};
  }

  Values load_values(const Block& block) {
    // In place where few rows read them, or where they lie as the copy would.
    const bool whole = t_.rows.run(block.begin, block.count) == block.count,
               packed = std::is_same_v<Kv, float> && t_.rows.v_stride == a_.v_pitch;
    if (t_.value_dim == a_.v_pitch && (few() || (whole && (packed || a_.rows <= 2 * kStripRows))))
      return {nullptr};
    for (Index i = 0; i < block.count; ++i)
      copy_row_of(value_row(block.begin + i), t_.value_dim, a_.v_pitch, a_.values, i);
    return {a_.values};
  }

  // Scores of the strip of rows [row, row + rows) with the columns [low, high) of a block, into s.
  void multiply_keys(Index row, Index rows, const Block& block, Index low, Index high, float* s) {
    const float* q = a_.q + row * a_.q_pitch;
    if (!few())
      return multiply_rows<false>(rows, q, a_.q_pitch, a_.keys + low, kKeys, t_.dim, s + low, kKeys,
                                  high - low);
    const auto row_at = [this](Index j) { return key_row(j); };
    for (Index c = low, keys; c < HWY_MIN(high, block.count); c += keys) {
      keys = t_.rows.run(block.begin + c, HWY_MIN(4, block.count - c));
      const FetchAhead fetch = ahead(block, c, keys, t_.rows.k_stride, row_at);
      multiply_few(rows, q, key_row(block.begin + c), t_.rows.k_stride, keys, s + c, fetch);
    }
  }
  void multiply_few(Index rows, const float* q, const Kv* k, Index stride, Index keys, float* s,
                    FetchAhead fetch) {
    for (; rows >= 4; rows -= 4, q += 4 * a_.q_pitch, s += 4 * kKeys, fetch.distance = 0)
      dot_4_keys<4>(q, a_.q_pitch, k, stride, keys, t_.dim, s, kKeys, fetch);
    for (; rows >= 2; rows -= 2, q += 2 * a_.q_pitch, s += 2 * kKeys, fetch.distance = 0)
      dot_4_keys<2>(q, a_.q_pitch, k, stride, keys, t_.dim, s, kKeys, fetch);
    if (rows == 1) dot_4_keys<1>(q, a_.q_pitch, k, stride, keys, t_.dim, s, kKeys, fetch);
  }

  // The strip's scores with a block, those that its rows do not see as -inf.
  BlockUse score_strip(Index row, Index rows, const Block& block, KeyRange& columns) {
    const auto [begin, count, next] = block;
    const Index first = t_.row(row).position, last = t_.row(row + rows - 1).position;
    const BlockUse use = pattern_.use(t_.head, t_.group, first, last, begin, begin + count);
    if (use == BlockUse::absent) return use;
    const KeyRange range = pattern_.keys(first, last);
    columns = {HWY_MAX(range.begin - begin, 0), HWY_MIN(range.end - begin, count)};
    if (columns.begin >= columns.end) return BlockUse::absent;
    // Whole vectors of the columns that some row sees; the others are masked.
    const Index low = columns.begin / kLanes * kLanes, high = hwy::RoundUpTo(columns.end, kLanes);
    float* s = a_.scores + row * kKeys;
    multiply_keys(row, rows, block, low, high, s);
    const bool full = use == BlockUse::full && count == kKeys;
    if (full && plain()) return use;
    for (Index r = 0; r < rows; ++r) score_row(t_.row(row + r), begin, count, full, low, high, s + r * kKeys);
    return use;
  }
  // The score function changes nothing.
  bool plain() const {
    if constexpr (requires { score_.plain(); })
      return score_.plain();
    else
      return false;
  }
  void score_row(const AttentionRow& row, Index begin, Index count, bool full, Index low, Index high,
                 float* s) const {
    const FloatTag d;
    const IntTag di;
    for (Index c = low; c < high; c += kLanes) {
      const auto keys = hn::Iota(di, static_cast<std::int32_t>(begin + c));
      auto x = hn::LoadU(d, s + c);
      if (c < count) x = score_(d, row, keys, count - c, x);
      if (!full) {
        const auto seen = hn::And(inside(di, keys, 0, begin + count), pattern_.visible(di, row, keys));
        x = hn::IfThenElse(hn::RebindMask(d, seen), x, hn::Set(d, kLowest));
      }
      hn::StoreU(x, d, s + c);
    }
  }

  void attend_strip(Index row, Index rows, const Block& block, Values& values) {
    KeyRange c;
    const BlockUse use = score_strip(row, rows, block, c);
    if (use == BlockUse::absent) return;
    const Index low = c.begin / kLanes * kLanes, high = hwy::RoundUpTo(c.end, kLanes);
    for (Index r = row; r < row + rows; ++r) normalize_row(t_, a_, r, low, high);
    if (use == BlockUse::partial && !values.checked) {
      values.checked = true;
      for (Index j = 0; j < block.count && values.finite; ++j)
        values.finite = values.rows != nullptr ? all_finite(values.rows + j * a_.v_pitch, 0, 1, t_.value_dim)
                                               : all_finite(value_row(block.begin + j), 0, 1, t_.value_dim);
    }
    // A key that is hidden from a row has the probability 0 there, which hides its values too, unless they
    // are not finite: then such keys are left out one by one.
    const bool any = values.finite || use == BlockUse::full;
    for (Index j = c.begin, n; j < c.end; j += n) {
      n = values.rows != nullptr ? c.end - j : t_.rows.run(block.begin + j, c.end - j);
      if (values.rows != nullptr) {
        multiply_values(any, row, rows, j, n, values.rows + j * a_.v_pitch, a_.v_pitch, {});
        continue;
      }
      const FetchAhead fetch =
          few() ? ahead(block, j, n, t_.rows.v_stride, [this](Index i) { return value_row(i); })
                : FetchAhead();
      multiply_values(any, row, rows, j, n, value_row(block.begin + j), t_.rows.v_stride, fetch);
    }
  }
  // O += P V for the keys [j, j + n) of the block; not `any`: for those with a probability.
  template <class T>
  void multiply_values(bool any, Index row, Index rows, Index j, Index n, const T* v, Index pitch,
                       FetchAhead fetch) {
    const float* p = a_.scores + row * kKeys + j;
    float* out = a_.out + row * a_.v_pitch;
    if (any) return multiply_rows<true>(rows, p, kKeys, v, pitch, n, out, a_.v_pitch, a_.v_pitch, fetch);
    for (Index r = 0; r < rows; ++r, p += kKeys, out += a_.v_pitch)
      for (Index i = 0; i < n; ++i)
        if (p[i] != 0)
          multiply_rows<true>(1, p + i, kKeys, v + i * pitch, pitch, 1, out, a_.v_pitch, a_.v_pitch);
  }

  // The least score that stays of each row of a strip: its top_k-th largest.
  void choose_strip(Index row) {
    const Index rows = HWY_MIN(kStripRows, a_.rows - row), pitch = a_.all_pitch;
    std::fill(a_.all, a_.all + rows * pitch, kLowest);
    visit([&](const Block& block) {
      if (!few()) load_keys(block), fetch_block(block.next, 0, a_.rows);
      KeyRange c;
      if (score_strip(row, rows, block, c) == BlockUse::absent) return;
      for (Index r = 0; r < rows; ++r)
        copy_row(a_.scores + (row + r) * kKeys + c.begin, c.end - c.begin,
                 a_.all + r * pitch + block.begin + c.begin - t_.rows.start);
    });
    const Index keys = t_.rows.end - t_.rows.start;
    for (Index r = 0; r < rows && t_.top_k < keys; ++r) {
      float *all = a_.all + r * pitch, *kth = all + t_.top_k - 1;
      std::nth_element(all, kth, all + keys, std::greater<float>());
      a_.least[row + r] = *kth;
    }
  }

  const AttentionTile& t_;
  const Pattern& pattern_;
  const Score& score_;
  TileArrays a_;
  Index first_, last_;  // positions of the tile's queries
};

template <class Pattern, class Score>
void attend_tile(const AttentionTile& t, const Pattern& pattern, const Score& score) {
  if (t.rows.narrow)
    TileAttention<Pattern, Score, bf16>(t, pattern, score).run();
  else
    TileAttention<Pattern, Score, float>(t, pattern, score).run();
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
