// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/attention_pattern.hpp"

#include <algorithm>

namespace ashlar {
inline namespace v0 {
namespace {

bool listed(std::span<const Index> positions, Index x) {
  return std::binary_search(positions.begin(), positions.end(), x);
}

void check_positions(std::string_view op, std::string_view what, std::span<const Index> list) {
  for (std::size_t n = 0; n < list.size(); ++n) {
    if (list[n] < 0) refuse(op, what, "[", n, "] is ", list[n], ", expected a position");
    if (n > 0 && list[n] <= list[n - 1])
      refuse(op, what, "[", n, "] is ", list[n], " after ", list[n - 1], ", expected ascending positions");
  }
}

void check_blocks(std::string_view op, const BlockSparse& b, Index heads, Index positions) {
  if (b.block < 0) refuse(op, "blocks have ", b.block, " positions, expected 1 or more");
  if (b.heads != 1 && b.heads != heads)
    refuse(op, "block lists are of ", b.heads, " heads, expected 1 or the ", heads, " of q");
  const Index rows = static_cast<Index>(b.offsets.size()) - 1, count = static_cast<Index>(b.keys.size());
  if (rows < 0 || rows % b.heads != 0)
    refuse(op, "block lists have ", rows + 1, " offsets, expected heads times query blocks and one more");
  const Index blocks = (positions + b.block - 1) / b.block;
  if (b.query_blocks() < blocks)
    refuse(op, "block lists are of ", b.query_blocks(), " query blocks, expected the ", blocks, " of ",
           positions, " positions");
  if (b.offsets.front() != 0) refuse(op, "block offsets[0] is ", b.offsets.front(), ", expected 0");
  if (b.offsets.back() != count)
    refuse(op, "block offsets end at ", b.offsets.back(), ", expected the ", count, " listed blocks");
  for (Index r = 0; r < rows; ++r) {
    const Index from = b.offsets[static_cast<std::size_t>(r)],
                to = b.offsets[static_cast<std::size_t>(r) + 1];
    if (to < from || to > count)
      refuse(op, "block offsets[", r + 1, "] is ", to, ", expected ", from, " to ", count);
    for (Index n = from; n < to; ++n) {
      const Index key = b.keys[static_cast<std::size_t>(n)];
      if (key < 0 || (n > from && key <= b.keys[static_cast<std::size_t>(n) - 1]))
        refuse(op, "block list ", r, " has ", key, ", expected ascending key blocks");
    }
  }
}

}  // namespace

bool AttentionPattern::visible(Index head, Index i, Index j) const {
  if (causal && !(j <= i || j < prefix || (causal_block > 0 && j / causal_block <= i / causal_block)))
    return false;
  if (listed(global_keys, j) || listed(global_queries, i)) return true;
  if (strided > 0 && (i - j) % strided == 0) return true;
  if (extended() && !local()) return false;
  if (left >= 0 && j < i - left * dilation) return false;
  if (right >= 0 && j > i + right * dilation) return false;
  if (chunk > 0 && i / chunk != j / chunk) return false;
  if ((i - j) % dilation != 0) return false;
  if (!blocks) return true;
  const Index row = (blocks.heads == 1 ? 0 : head) * blocks.query_blocks() + i / blocks.block;
  const auto from = blocks.keys.begin() + blocks.offsets[static_cast<std::size_t>(row)],
             to = blocks.keys.begin() + blocks.offsets[static_cast<std::size_t>(row) + 1];
  return std::binary_search(from, to, j / blocks.block);
}

void AttentionPattern::check(std::string_view op, Index heads, Index positions) const {
  if (positions >= Index{1} << 30)
    refuse(op, "a sequence has ", positions, " positions, expected fewer than 2^30");
  if (left < kAll || right < kAll)
    refuse(op, "the window is ", left, " to the left and ", right,
           " to the right, expected 0 or more, or -1");
  if (chunk < 0) refuse(op, "chunks have ", chunk, " positions, expected 0 (none) or more");
  if (dilation < 1) refuse(op, "dilation is ", dilation, ", expected 1 or more");
  if (strided < 0) refuse(op, "strided is ", strided, ", expected 0 (none) or more");
  if (causal_block < 0 || prefix < 0)
    refuse(op, "causal_block is ", causal_block, " and prefix ", prefix, ", expected 0 (none) or more");
  if (!causal && (causal_block > 0 || prefix > 0))
    refuse(op, "causal_block and prefix are given without causal, which they widen");
  if (causal_block > 0 && prefix > 0) refuse(op, "both causal_block and prefix are given, expected one");
  check_positions(op, "global_keys", global_keys);
  check_positions(op, "global_queries", global_queries);
  if (blocks) check_blocks(op, blocks, heads, positions);
}

}  // namespace v0
}  // namespace ashlar
