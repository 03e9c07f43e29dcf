// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>
#include <string_view>

#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {

// Which key blocks a query block sees, in compressed sparse rows: blocks keys[offsets[r]] to
// keys[offsets[r + 1] - 1], ascending, for row r = head * query blocks + query block. Blocks are of positions
// [b block, (b + 1) block), of queries as of keys; the last may be partial.
struct BlockSparse {
  Index block = 0;  // positions; 0: no block lists
  std::span<const Index> offsets{}, keys{};
  Index heads = 1;  // 1: the same lists for all heads

  explicit operator bool() const { return block != 0; }
  Index query_blocks() const { return (static_cast<Index>(offsets.size()) - 1) / heads; }
};

// Which keys j a query sees, by their positions; i is the query's. A key must pass
//   causal:       j <= i, or with `causal_block` b: j / b <= i / b (block-causal), or with `prefix` p also
//                 j < p (prefix LM; Raffel et al., 2020)
// and, where some of these are given, all of those that are:
//   left, right:  i - left dilation <= j <= i + right dilation (sliding window; Beltagy et al., 2020)
//   chunk:        j / chunk = i / chunk (chunked-local)
//   dilation d:   (i - j) mod d = 0 (dilated; alone, the strided pattern of Child et al., 2019)
//   blocks:       j's block is listed for i's (block-sparse; Zaheer et al., 2020)
// or else one of
//   global_keys, global_queries:  j is listed, i is listed (ascending positions; Longformer's global tokens)
//   strided s:    (i - j) mod s = 0
// Sequences of a packed batch never see each other. The default is everything.
struct AttentionPattern {
  static constexpr Index kAll = -1;

  bool causal = false;
  Index causal_block = 0, prefix = 0;
  Index left = kAll, right = kAll;
  Index chunk = 0, dilation = 1;
  BlockSparse blocks{};
  std::span<const Index> global_keys{}, global_queries{};
  Index strided = 0;

  // Causal, and at most `window` keys with the query's own; 0: all earlier keys.
  static AttentionPattern causal_window(Index window = 0) {
    return {.causal = true, .left = window > 0 ? window - 1 : kAll};
  }

  // Some of the second group is given.
  bool local() const { return left >= 0 || right >= 0 || chunk > 0 || dilation > 1 || blocks; }
  bool extended() const { return !global_keys.empty() || !global_queries.empty() || strided > 0; }

  // The equation above, key by key; the engine's own tests are its vectorised form.
  bool visible(Index head, Index i, Index j) const;

  // Refuses contradictions, lists that are not ascending or do not reach over `positions`, and 2^30 positions
  // or more. What lists say of positions behind a sequence's end is not used.
  void check(std::string_view op, Index heads, Index positions) const;
};

}  // namespace v0
}  // namespace ashlar
