// SPDX-License-Identifier: Apache-2.0
// What the softmax attention engine is told: one tile of queries against the keys of its sequence.
#pragma once
#include <algorithm>

#include "ashlar/core/index.hpp"

namespace ashlar {
inline namespace v0 {
namespace kernels {

struct KeyRange {
  Index begin, end;
};

// Rows of one tile are the queries [first, first + queries) times the `group` query heads of one key head,
// queries outermost. Pointers are to the sequence's first token and the tile's first head.
struct AttentionTile {
  static constexpr Index kKeys = 64;   // keys a block
  static constexpr Index kRows = 192;  // rows a tile, when the group allows
  static constexpr Index kAlign = 16;  // row lengths in scratch are multiples of this

  const float *q, *k, *v;
  float* out;
  Index q_stride, q_head, k_stride, v_stride, out_stride, out_head;  // from token to token, from head to head
  Index first, queries, group;
  Index position;  // of query 0 of the sequence, among its keys
  Index keys, dim, value_dim;
  float scale;
  float* scratch;  // scratch_size(...)

  static constexpr Index padded(Index n) { return (n + kAlign - 1) / kAlign * kAlign; }
  static constexpr Index queries_a_tile(Index group) { return std::max<Index>(1, kRows / group); }
  static constexpr Index scratch_size(Index group, Index dim, Index value_dim) {
    const Index rows = queries_a_tile(group) * group;
    return rows * (padded(dim) + kKeys + padded(value_dim) + 2 * kAlign) + kKeys * (dim + padded(value_dim));
  }
};

}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
