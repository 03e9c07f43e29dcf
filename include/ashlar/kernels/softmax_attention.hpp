// SPDX-License-Identifier: Apache-2.0
// What the softmax attention engine is told: one tile of queries against keys of its sequence.
#pragma once
#include <algorithm>

#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace kernels {

struct KeyRange {
  Index begin, end;
};

// How a block of keys is seen by some queries.
enum class BlockUse : std::uint8_t { absent, partial, full };

// Which query a row of scores is of.
struct AttentionRow {
  Index sequence, head, query;  // of the batch, of q, in its sequence
  Index position;               // among the keys
};

// Where the rows of positions [start, end) are, for one key head.
struct KeyRows {
  const void *k = nullptr, *v = nullptr;
  bool narrow = false;  // bf16, else f32
  Index k_stride = 0, v_stride = 0;
  Index start = 0, end = 0;
  Index ring = 0;  // rows of the ring; 0: not a ring
  Index page = 0;
  const Index* pages = nullptr;

  Index row(Index j) const {
    if (ring != 0) return j % ring;
    return page == 0 ? j - start : pages[(j - start) / page] * page + (j - start) % page;
  }
  // Of the `count` rows from position j on, how many follow one another.
  Index run(Index j, Index count) const {
    const Index left = ring != 0 ? ring - j % ring : page != 0 ? page - (j - start) % page : count;
    return std::min(left, count);
  }
};

// Rows of one tile are the queries [first, first + queries) times the `group` query heads of one key head,
// queries outermost. Pointers are to the sequence's first token and the tile's first head.
struct AttentionTile {
  static constexpr Index kKeys = 64;    // keys a block
  static constexpr Index kRows = 384;   // rows a tile, when the group allows
  static constexpr Index kFewRows = 8;  // up to so many rows, keys are read in place
  static constexpr Index kPart = 512;   // keys a part at least, where few rows have many keys
  static constexpr Index kAlign = 16;   // row lengths in scratch are multiples of this

  const void* q = nullptr;
  bool narrow_q = false;  // bf16
  float* out = nullptr;
  Index q_stride = 0, q_head = 0, out_stride = 0, out_head = 0;  // from token to token, from head to head
  float *lse = nullptr, *entropy = nullptr;                      // as out, one a head; or null
  Index lse_stride = 0, lse_head = 0, entropy_stride = 0, entropy_head = 0;
  KeyRows rows;
  Index sequence = 0, head = 0, first = 0, queries = 0, group = 1;
  Index position = 0;  // of query 0 of the sequence, among its keys
  Index dim = 0, value_dim = 0;
  float scale = 1;
  AttentionNormalizer normalizer = AttentionNormalizer::softmax;
  Index top_k = 0;
  const float* sinks = nullptr;  // of the tile's heads
  bool moments = false;          // sums of p ln p are kept, for entropies

  // With `part_begin` < `part_end` only those keys are taken, and what they give is left in `part`: for each
  // row its output before the division [padded(value_dim)], then its maximum, sum and moment.
  Index part_begin = 0, part_end = 0;
  bool first_part = true;
  float* part = nullptr;
  float* scratch = nullptr;  // scratch_size(...)

  bool softmax() const { return normalizer <= AttentionNormalizer::softmax_plus_one; }
  AttentionRow row(Index r) const {
    const Index query = first + r / group;
    return {sequence, head + r % group, query, position + query};
  }

  static constexpr Index padded(Index n) { return (n + kAlign - 1) / kAlign * kAlign; }
  // Keys a part: more with many rows, whose results are longer.
  static constexpr Index part_keys(Index rows) { return kPart * std::clamp<Index>(rows / kFewRows, 1, 8); }
  static constexpr Index part_pitch(Index value_dim) { return padded(value_dim) + kAlign; }
  static constexpr Index queries_a_tile(Index group) { return std::max<Index>(1, kRows / group); }
  static constexpr Index scratch_size(Index group, Index dim, Index value_dim, Index top_k_keys) {
    const Index rows = queries_a_tile(group) * group, wide = padded(std::max(dim, value_dim));
    return rows * (padded(dim) + kKeys + padded(value_dim) + 2 + 2 * kAlign) + kAlign +
           kKeys * (padded(dim) + padded(value_dim) + wide) + kAlign * padded(top_k_keys + kKeys);
  }
};

}  // namespace kernels

namespace detail {

// The part of the engine that does not depend on pattern and score: runs `tile(policies, t)` for every tile
// of a call, on the threads of `exec`. args.pattern bounds the keys that are looked at; where its block lists
// are, tiles begin and end.
using AttentionTileFunction = void (*)(const void* policies, const kernels::AttentionTile& tile);
template <class Kv, class Q>
void run_attention(const SoftmaxAttentionArgs<float, Kv, Q>& args, AttentionTileFunction tile,
                   const void* policies, CpuExec& exec);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
