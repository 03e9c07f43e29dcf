// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "ashlar/nn/mixers/efficient_attention.hpp"
#include "ashlar/ops/gather_heads.hpp"
#include "ashlar/ops/lsh.hpp"
#include "ashlar/ops/norm.hpp"

namespace ashlar {
inline namespace v0 {

struct ReformerConfig {
  enum Form : std::uint8_t {
    paper,
    // As Long Range Arena released it: as many buckets as rotations and their negatives whatever the length,
    // chunks of that part of the sequence, keys as they are, scores times D^1/2, and no mask, not of self.
    released
  };
  Index bucket_size = 0;  // tokens a chunk of the paper's form
  bool causal = false;
  bool allow_duplicates = true;  // false: a pair that several rounds find counts once
  Form form = paper;
  // Released form: sequences are lengthened by zero tokens, which are seen, to the next multiple above (by a
  // whole one where the length is one); 10 there. 0: lengths must be multiples of the buckets.
  Index padding = 0;
};

// The Reformer's attention with one projection for queries and keys (Kitaev, Kaiser and Levskaya, 2020). In
// each round of hashing, tokens are sorted by bucket (lsh_sort) and cut into chunks; a chunk's queries see
// its own keys and those of the chunk before, the first chunk of all rounds those of the last:
//   s_ij = q_i k_j / |k_j| D^-1/2, -5e4 where i = j: a token sees itself when there is nothing else
//   o_i = sum_r e^(lse_r) o_r / sum_r e^(lse_r) over the rounds r, lse_r = ln sum_j e^(s_ij)
// O(T bucket_size) scores a round. Rotations [H or 1, D, rounds, R] are the caller's; a sequence of L tokens
// has L / bucket_size buckets and uses half as many columns. Refused: lengths that are not multiples of
// 2 bucket_size or have more than 2 R buckets, keys that are not the queries, what the released form lacks.
template <class Exec>
class ReformerAttention final : public EfficientAttention<Exec> {
 public:
  ReformerAttention(const ReformerConfig& c, View<const float, 4> rotations, Exec& exec)
      : c_(c), dim_(rotations.shape[1]), rounds_(rotations.shape[2]), width_(rotations.shape[3]) {
    expect_shape(kName, "rotations", rotations, rotations.shape);
    if (rotations.size() == 0)
      refuse(kName, "rotations have shape ", to_string(rotations.shape), ", expected some");
    const bool released = c.form == ReformerConfig::released;
    if (released && (c.bucket_size != 0 || c.causal || !c.allow_duplicates || rounds_ != 1))
      refuse(
          kName, "bucket_size is ", c.bucket_size, " with ", rounds_,
          " rounds, expected 0 with one round, and neither a causal mask nor a correction of duplicates, in "
          "the released form");
    if (!released && (c.bucket_size < 1 || c.padding != 0))
      refuse(kName, "bucket_size is ", c.bucket_size, " and padding ", c.padding,
             ", expected 1 or more and no padding");
    if (c.padding < 0) refuse(kName, "padding is ", c.padding, ", expected 0 or more");
    for (Index h = 0; h < rotations.shape[0]; ++h) {
      auto rows = std::make_shared<Tensor<float, 2>>(std::array<Index, 2>{rounds_ * width_, dim_});
      for (Index i = 0; i < dim_; ++i)
        for (Index r = 0; r < rounds_ * width_; ++r)
          rows->view()(r, i) = rotations(h, i, r / width_, r % width_);
      rotations_.push_back(Backend<Exec>::matrix({rows->data(), DType::f32, {rounds_ * width_, dim_}, rows},
                                                 rounds_ * width_, dim_, true, exec));
    }
  }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    heads.check(kName, true, false);
    const Index tokens = heads.v.shape[0], count = heads.v.shape[1];
    if (heads.k && (heads.k.data != heads.q.data || heads.k.strides != heads.q.strides))
      refuse(kName, "k is not q, expected one projection for both");
    if (heads.q.shape[2] != dim_ ||
        (rotations_.size() != 1 && static_cast<Index>(rotations_.size()) != count))
      refuse(kName, "q has shape ", to_string(heads.q.shape), ", expected the rotations' ", dim_,
             " channels and ", rotations_.size(), " heads, or one rotation for all");
    if (c_.form == ReformerConfig::released && c_.padding != 0) return attend_padded(heads, exec);
    for (Index n = 0; n < heads.offsets.count(); ++n) {
      const Index length = heads.offsets.end(n, tokens) - heads.offsets.begin(n),
                  unit = c_.form == ReformerConfig::paper ? 2 * c_.bucket_size : 2 * width_;
      if (length % unit != 0 || (c_.form == ReformerConfig::paper && length > width_ * unit))
        refuse(kName, "sequence ", n, " has ", length, " tokens, expected a multiple of ", unit,
               c_.form == ReformerConfig::paper ? concat(", at most ", width_ * unit) : "");
    }
    attend_chunks(heads, exec);
  }

 private:
  static constexpr std::string_view kName = "ReformerAttention";
  static constexpr float kSelf = -5e4f;

  // The tokens of a chunk of a sequence.
  Index chunk(Index length) const {
    return c_.form == ReformerConfig::paper ? c_.bucket_size : length / (2 * width_);
  }

  void attend_padded(const HeadBatch& heads, Exec& exec) const {
    const Index tokens = heads.v.shape[0], count = heads.v.shape[1], sequences = heads.offsets.count();
    typename Exec::Scratch scratch(exec);
    typename Backend<Exec>::HostScratch lists(exec);
    const auto starts = lists.template get<Index>(sequences + 1);
    starts(0) = 0;
    for (Index n = 0; n < sequences; ++n) {
      const Index length = heads.offsets.end(n, tokens) - heads.offsets.begin(n),
                  longer = (length / c_.padding + 1) * c_.padding;
      if (longer % (2 * width_) != 0)
        refuse(kName, "sequence ", n, " has ", longer, " tokens with its padding, expected a multiple of ",
               2 * width_);
      starts(n + 1) = starts(n) + longer;
    }
    const Index all = starts(sequences);
    const auto in = lists.template get<Index>(all, count), out = lists.template get<Index>(tokens, count);
    std::fill_n(in.data, in.size(), Index{-1});
    for (Index n = 0; n < sequences; ++n)
      for (Index t = heads.offsets.begin(n); t < heads.offsets.end(n, tokens); ++t) {
        const Index to = starts(n) + t - heads.offsets.begin(n);
        std::fill_n(in.at(to), count, t), std::fill_n(out.at(t), count, to);
      }
    auto padded = [&](View<const float, 3> x) {
      const auto longer = scratch.floats(all, count, x.shape[2]);
      gather_heads(GatherHeads{x, in, longer}, exec);
      return longer;
    };
    HeadBatch whole;
    whole.q = padded(heads.q), whole.v = padded(heads.v);
    whole.out = scratch.floats(all, count, heads.v.shape[2]);
    whole.offsets = std::span<const Index>(starts.data, static_cast<std::size_t>(sequences + 1));
    attend_chunks(whole, exec);
    gather_heads(GatherHeads{whole.out, out, heads.out}, exec);
  }

  // Round by round, so that the sorted copies and the tables are of one round's size.
  void attend_chunks(const HeadBatch& heads, Exec& exec) const {
    const Index tokens = heads.v.shape[0], count = heads.v.shape[1], dv = heads.v.shape[2];
    const Index sequences = heads.offsets.count(), m = c_.bucket_size;
    const bool paper = c_.form == ReformerConfig::paper;
    if (tokens == 0) return;
    typename Exec::Scratch scratch(exec);
    typename Backend<Exec>::HostScratch lists(exec);
    const auto order = lists.template get<Index>(rounds_, tokens, count),
               place = lists.template get<Index>(rounds_, tokens, count);
    sort(heads, order, place, exec);

    View<const float, 3> keys = heads.q;
    if (paper) {
      const auto unit = scratch.floats(tokens, count, dim_);
      l2_norm(L2Norm{heads.q, unit, 1e-24f}, exec);
      keys = unit;
    }
    // Keys in sorted order, in front of each sequence's those of its last chunk of the round before.
    Index chunks = 0, key_rows = 0;
    for (Index n = 0; n < sequences; ++n) {
      const Index length = heads.offsets.end(n, tokens) - heads.offsets.begin(n);
      if (length == 0) continue;
      chunks += length / chunk(length), key_rows += length + chunk(length);
    }
    const auto key_order = lists.template get<Index>(key_rows, count);
    const auto q = scratch.floats(tokens, count, dim_), k = scratch.floats(key_rows, count, dim_),
               v = scratch.floats(key_rows, count, dv), sorted = scratch.floats(tokens, count, dv),
               part = scratch.floats(tokens, count, dv);
    const auto sorted_lse = scratch.floats(tokens, count), lse = scratch.floats(tokens, count),
               part_lse = scratch.floats(tokens, count);
    const auto bias = paper ? scratch.floats(tokens / m, count, m, 2 * m) : View<float, 4>();
    const auto starts = lists.template get<Index>(chunks + 1);
    const auto key_values = lists.template get<KeyValue>(chunks);
    SoftmaxAttention args{q, {}, {}, sorted};
    args.offsets = std::span<const Index>(starts.data, static_cast<std::size_t>(chunks + 1));
    args.sequences = {key_values.data, static_cast<std::size_t>(chunks)};
    args.score.bias = bias, args.lse = sorted_lse;
    if (!paper) args.score.scale = std::sqrt(static_cast<float>(dim_));

    for (Index r = 0; r < rounds_; ++r) {
      Index at = 0, c = 0;
      starts(0) = 0;
      for (Index n = 0; n < sequences; ++n) {
        const Index begin = heads.offsets.begin(n), end = heads.offsets.end(n, tokens);
        if (begin == end) continue;
        const Index rows = chunk(end - begin);
        const Index* before = order.at((r + rounds_ - 1) % rounds_, end - rows);
        std::copy_n(before, rows * count, key_order.at(at));
        std::copy_n(order.at(r, begin), (end - begin) * count, key_order.at(at + rows));
        for (Index i = begin; i < end; i += rows, at += rows, ++c) {
          key_values(c) = {k.slice(0, at, at + 2 * rows), v.slice(0, at, at + 2 * rows)};
          starts(c + 1) = i + rows;
        }
        at += rows;
      }
      gather_heads(GatherHeads{heads.q, order[r], q}, exec);
      gather_heads(GatherHeads{keys, key_order, k}, exec);
      gather_heads(GatherHeads{heads.v, key_order, v}, exec);
      if (paper) {
        LshBias table{order, place, heads.offsets, r, m, bias};
        table.causal = c_.causal, table.correct_duplicates = !c_.allow_duplicates;
        table.self = -std::numeric_limits<float>::infinity();
        lsh_bias(table, exec);
      }
      softmax_attention(args, exec);
      const bool first = r == 0;
      gather_heads(GatherHeads{sorted, place[r], first ? heads.out : part}, exec);
      gather_heads(GatherHeads{column(sorted_lse), place[r], column(first ? lse : part_lse)}, exec);
      if (!first) merge_attention(MergeAttention{heads.out, lse, part, part_lse, heads.out, lse}, exec);
    }
    if (!paper) return;
    // The token itself, once for all rounds: beside any other key e^-5e4 is nothing, and sums of scores near
    // -5e4 would be off by their last bits, which are 0.004.
    Backend<Exec>::fill(column(part_lse), kSelf, exec);
    merge_attention(MergeAttention{heads.out, lse, heads.v, part_lse, heads.out}, exec);
  }

  void sort(const HeadBatch& heads, View<Index, 3> order, View<Index, 3> place, Exec& exec) const {
    const Index tokens = heads.q.shape[0], count = heads.q.shape[1];
    typename Exec::Scratch scratch(exec);
    const auto rotated = scratch.floats(tokens, count, rounds_ * width_);
    for (Index h = 0; h < count; ++h) {
      const View<const float, 2> x(heads.q.at(0, h), {tokens, dim_},
                                   {heads.q.strides[0], heads.q.strides[2]});
      const View<float, 2> to(rotated.at(0, h), {tokens, rounds_ * width_}, {rotated.strides[0], 1});
      const auto& rotation = rotations_[rotations_.size() == 1 ? 0 : static_cast<std::size_t>(h)];
      dense(typename Backend<Exec>::Dense{x, rotation, {}, to}, exec);
    }
    lsh_sort(LshSort{rotated.split(2, width_), heads.offsets, c_.bucket_size, order, place}, exec);
  }

  // [T, H] as [T, H, 1].
  static View<float, 3> column(const View<float, 2>& x) { return x.split(1, 1); }

  ReformerConfig c_;
  Index dim_, rounds_, width_;
  std::vector<typename Backend<Exec>::Matrix> rotations_;
};

}  // namespace v0
}  // namespace ashlar
