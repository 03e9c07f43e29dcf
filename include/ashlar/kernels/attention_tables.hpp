// SPDX-License-Identifier: Apache-2.0
// An AttentionPattern as the engine asks about it: rows of visible keys as intervals, and what lists add.
#pragma once
#include <algorithm>
#include <cstdint>

#include "ashlar/kernels/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace kernels {

inline constexpr Index kLongest = Index{1} << 30;  // positions of a sequence
inline constexpr Index kNoEnd = (Index{1} << 30) + 64;  // behind every position; keys are 32 bits inside

struct AttentionTables {
  AttentionPattern pattern;
  bool local;  // the interval and the block lists are a part of the pattern
  // Whether a position is a global key [positions + 64], and how many before it are.
  const std::uint8_t* is_global = nullptr;
  const std::int32_t* globals_before = nullptr;
  Index positions = 0;

  explicit AttentionTables(const AttentionPattern& p) : pattern(p), local(p.local() || !p.extended()) {
    // Longer than every sequence is as long as one.
    for (Index* n : {&pattern.left, &pattern.right, &pattern.chunk, &pattern.dilation, &pattern.causal_block,
                     &pattern.prefix, &pattern.strided})
      *n = std::min(*n, kLongest);
  }

  // Keys [0, allowed(i)) are not behind the query, in the pattern's sense.
  Index allowed(Index i) const {
    if (!pattern.causal) return kNoEnd;
    if (pattern.causal_block > 0) return (i / pattern.causal_block + 1) * pattern.causal_block;
    return std::max(i + 1, pattern.prefix);
  }
  // The interval of window and chunk; it moves up with i.
  KeyRange near(Index i) const {
    KeyRange r{0, kNoEnd};
    if (pattern.left >= 0) r.begin = std::max(r.begin, i - pattern.left * pattern.dilation);
    if (pattern.right >= 0) r.end = std::min(r.end, i + pattern.right * pattern.dilation + 1);
    if (pattern.chunk > 0) {
      r.begin = std::max(r.begin, i / pattern.chunk * pattern.chunk);
      r.end = std::min(r.end, (i / pattern.chunk + 1) * pattern.chunk);
    }
    return r;
  }
  bool global_query(Index i) const {
    return std::binary_search(pattern.global_queries.begin(), pattern.global_queries.end(), i);
  }
  bool global_query_in(Index first, Index last) const {
    const auto at = std::lower_bound(pattern.global_queries.begin(), pattern.global_queries.end(), first);
    return at != pattern.global_queries.end() && *at <= last;
  }
  Index globals_in(Index begin, Index end) const {
    if (globals_before == nullptr) return 0;
    return globals_before[std::min(end, positions)] - globals_before[std::min(begin, positions)];
  }
  // How many of the key blocks [begin, end) are listed for a query block.
  Index listed(Index head, Index query_block, Index begin, Index end) const {
    const BlockSparse& b = pattern.blocks;
    const Index* row = b.offsets.data() + (b.heads == 1 ? 0 : head * b.query_blocks()) + query_block;
    const Index *from = b.keys.data() + row[0], *to = b.keys.data() + row[1];
    const Index* at = std::lower_bound(from, to, begin);
    return std::lower_bound(at, to, end) - at;
  }

  KeyRange keys(Index first, Index last) const {
    KeyRange r{0, allowed(last)};
    if (pattern.causal && pattern.prefix == 0 && pattern.causal_block == 0) r.end = last + 1;
    if (pattern.strided > 0 || !pattern.global_keys.empty() || global_query_in(first, last)) return r;
    const KeyRange from = near(first), to = near(last);
    return {std::max(r.begin, from.begin), std::min(r.end, to.end)};
  }

  BlockUse use(Index head, Index heads, Index first, Index last, Index begin, Index end) const {
    if (begin >= allowed(last)) return BlockUse::absent;
    const bool all_allowed = end <= allowed(first);
    if (global_query_in(first, last))
      return first == last && all_allowed ? BlockUse::full : BlockUse::partial;
    BlockUse seen = local ? near_use(head, heads, first, last, begin, end) : BlockUse::absent;
    if (seen == BlockUse::full) return all_allowed ? BlockUse::full : BlockUse::partial;
    const bool more = pattern.strided > 0 || globals_in(begin, end) > 0;
    return seen == BlockUse::partial || more ? BlockUse::partial : BlockUse::absent;
  }

 private:
  BlockUse near_use(Index head, Index heads, Index first, Index last, Index begin, Index end) const {
    const KeyRange low = near(first), high = near(last);
    if (end <= low.begin || begin >= high.end) return BlockUse::absent;
    bool full = begin >= high.begin && end <= low.end && pattern.dilation == 1;
    if (!pattern.blocks) return full ? BlockUse::full : BlockUse::partial;
    const Index size = pattern.blocks.block, from = begin / size, to = (end - 1) / size + 1;
    bool any = false;
    for (Index h = head; h < head + (pattern.blocks.heads == 1 ? 1 : heads); ++h)
      for (Index q = first / size; q <= last / size; ++q) {
        const Index count = listed(h, q, from, to);
        any = any || count > 0, full = full && count == to - from;
      }
    return !any ? BlockUse::absent : full ? BlockUse::full : BlockUse::partial;
  }
};

}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
