// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "ashlar/core/tensor.hpp"
#include "ashlar/ops/attention_pattern.hpp"

namespace ashlar {
inline namespace v0 {

// A pattern and the lists that it points to; a value.
struct PatternTables {
  AttentionPattern rule;  // without lists
  std::vector<Index> global_keys, global_queries;
  Index block = 0, block_heads = 1;
  std::vector<Index> block_offsets, block_keys;

  // Valid as long as the tables are.
  AttentionPattern pattern() const {
    AttentionPattern p = rule;
    p.global_keys = global_keys, p.global_queries = global_queries;
    if (block > 0) p.blocks = {block, block_offsets, block_keys, block_heads};
    return p;
  }
};

// What a head of the Sparse Transformer (Child et al., 2019) sees of the keys j <= i:
//   local w:             i - j < w
//   strided s:           (i - j) mod s = 0
//   fixed_block b:       i / b = j / b
//   fixed_columns b, c:  j mod b >= b - c, and with `first_column` j mod b = 0 too (Long Range Arena's form)
struct SparseFactor {
  enum Kind : std::uint8_t { local, strided, fixed_block, fixed_columns } kind = local;
  Index size = 0;     // w, s or b
  Index columns = 0;  // c
  bool first_column = false;
};

// The keys that any of the factors sees, for positions [begin, end) (only fixed_columns asks for them).
// Refused: sizes below 1, columns outside of 1 to b, and what one pattern cannot hold: two factors of a kind
// (fixed_columns apart), local with fixed_block.
PatternTables sparse_pattern(std::span<const SparseFactor> factors, Index begin, Index end);

// Longformer's pattern (Beltagy et al., 2020): i - window dilation <= j <= i + window dilation, at multiples
// of the dilation; and tokens at `globals` (ascending positions) see and are seen by all others.
PatternTables longformer_pattern(Index window, std::span<const Index> globals = {}, Index dilation = 1,
                                 bool causal = false);

// BigBird's (Zaheer et al., 2020) in blocks of positions: the first and the last block see and are seen by
// all; another sees itself, its neighbours and those that `random` [H or 1, blocks - 2, r] names for it (-1:
// none; one named twice counts once). Of `blocks` blocks the sequence may fill fewer: those that begin at
// `length` or behind it are left out. Refused: another shape, block indices outside.
PatternTables bigbird_pattern(Index block, Index blocks, View<const Index, 3> random, Index length);

// Random blocks for the above: r different ones for each row and head, neither global nor neighbours; from
// blocks 0 to `among` - 1 alone where that is above 0 (released code draws among the first 1024 positions).
// -1 where there are not so many. The same seed gives the same table everywhere (splitmix64).
Tensor<Index, 3> random_blocks(Index heads, Index blocks, Index r, std::uint64_t seed, Index among = 0);

}  // namespace v0
}  // namespace ashlar
