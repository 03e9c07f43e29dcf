// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/attention_patterns.hpp"

#include <algorithm>
#include <numeric>

namespace ashlar {
inline namespace v0 {
namespace {

void check(std::string_view who, const SparseFactor& f) {
  if (f.size < 1) refuse(who, "a factor has size ", f.size, ", expected 1 or more");
  if (f.kind == SparseFactor::fixed_columns && (f.columns < 1 || f.columns > f.size))
    refuse(who, "fixed columns are ", f.columns, " of a block of ", f.size, ", expected 1 to ", f.size);
}

// Uniform in [0, n) for n far below 2^32 (splitmix64; Steele, Lea and Flood, 2014).
Index draw(std::uint64_t& state, Index n) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<Index>(((z ^ (z >> 31)) >> 32) * static_cast<std::uint64_t>(n) >> 32);
}

}  // namespace

PatternTables sparse_pattern(std::span<const SparseFactor> factors, Index begin, Index end) {
  constexpr std::string_view kWho = "sparse_pattern";
  if (factors.empty()) refuse(kWho, "there are no factors, expected one or more");
  PatternTables tables;
  AttentionPattern& rule = tables.rule;
  rule.causal = true;
  bool seen[4] = {};
  for (const SparseFactor& f : factors) {
    check(kWho, f);
    if (seen[f.kind] && f.kind != SparseFactor::fixed_columns)
      refuse(kWho, "two factors are of the same kind, expected one of a kind except of columns");
    seen[f.kind] = true;
    switch (f.kind) {
      case SparseFactor::local: rule.left = f.size - 1; break;
      case SparseFactor::strided: rule.strided = f.size; break;
      case SparseFactor::fixed_block: rule.chunk = f.size; break;
      case SparseFactor::fixed_columns:
        for (Index j = begin; j < end; ++j)
          if (const Index column = j % f.size;
              column >= f.size - f.columns || (f.first_column && column == 0))
            tables.global_keys.push_back(j);
    }
  }
  if (seen[SparseFactor::local] && seen[SparseFactor::fixed_block])
    refuse(kWho, "both a local and a fixed_block factor are given, expected one of them");
  if (factors.size() == 1 && rule.strided > 0) rule.dilation = rule.strided, rule.strided = 0;
  auto& keys = tables.global_keys;
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  // Columns alone: a short sequence may have none, and then nothing is visible.
  if (factors.size() == 1 && factors[0].kind == SparseFactor::fixed_columns && keys.empty())
    tables.block = std::max<Index>(1, end), tables.block_offsets = {0, 0};
  return tables;
}

PatternTables longformer_pattern(Index window, std::span<const Index> globals, Index dilation, bool causal) {
  if (window < 0) refuse("longformer_pattern", "the window is ", window, ", expected 0 or more");
  PatternTables tables;
  tables.rule.left = tables.rule.right = window;
  tables.rule.dilation = dilation, tables.rule.causal = causal;
  tables.global_keys.assign(globals.begin(), globals.end());
  tables.global_queries = tables.global_keys;
  return tables;
}

PatternTables bigbird_pattern(Index block, Index blocks, View<const Index, 3> random, Index length) {
  constexpr std::string_view kWho = "bigbird_pattern";
  if (block < 1) refuse(kWho, "blocks have ", block, " positions, expected 1 or more");
  if (length > blocks * block)
    refuse(kWho, "the sequence has ", length, " positions, expected at most the ", blocks * block, " of ",
           blocks, " blocks");
  const Index inner = std::max<Index>(0, blocks - 2), heads = std::max<Index>(1, random.shape[0]);
  if (random && random.shape[1] != inner)
    refuse(kWho, "random blocks have shape ", to_string(random.shape), ", expected ", inner, " rows for ",
           blocks, " blocks");
  PatternTables tables;
  tables.block = block, tables.block_heads = heads;
  tables.block_offsets.push_back(0);
  const Index filled = (length + block - 1) / block;
  std::vector<Index> row;
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < filled; ++i) {
      row.clear();
      if (i == 0 || i == blocks - 1) {
        row.resize(static_cast<std::size_t>(filled));
        std::iota(row.begin(), row.end(), Index{0});
      } else {
        row = {0, i - 1, i, i + 1, blocks - 1};
        for (Index m = 0; random && m < random.shape[2]; ++m) {
          const Index key = random(h, i - 1, m);
          if (key < -1 || key >= blocks)
            refuse(kWho, "random block ", key, " is named for row ", i, ", expected -1 to ", blocks - 1);
          if (key >= 0) row.push_back(key);
        }
        std::sort(row.begin(), row.end());
        row.erase(std::unique(row.begin(), row.end()), row.end());
        while (!row.empty() && row.back() >= filled) row.pop_back();
      }
      tables.block_keys.insert(tables.block_keys.end(), row.begin(), row.end());
      tables.block_offsets.push_back(static_cast<Index>(tables.block_keys.size()));
    }
  return tables;
}

Tensor<Index, 3> random_blocks(Index heads, Index blocks, Index r, std::uint64_t seed, Index among) {
  if (heads < 1 || r < 0 || among < 0)
    refuse("random_blocks", heads, " heads, ", r, " blocks a row among ", among,
           ", expected 1 or more heads and 0 or more blocks");
  Tensor<Index, 3> table({heads, std::max<Index>(0, blocks - 2), r});
  const Index last = std::min(blocks - 1, among > 0 ? among : blocks);  // of the blocks to draw from, and one
  std::uint64_t state = seed;
  std::vector<Index> allowed;
  for (Index h = 0; h < heads; ++h)
    for (Index i = 1; i < blocks - 1; ++i) {
      allowed.clear();
      for (Index key = 1; key < last; ++key)
        if (key < i - 1 || key > i + 1) allowed.push_back(key);
      const Index count = static_cast<Index>(allowed.size());
      for (Index m = 0; m < r; ++m) {
        Index* const at = &table.view()(h, i - 1, m);
        *at = -1;
        if (m >= count) continue;
        const auto from = static_cast<std::size_t>(m),
                   chosen = static_cast<std::size_t>(m + draw(state, count - m));
        std::swap(allowed[from], allowed[chosen]);
        *at = allowed[from];
      }
    }
  return table;
}

}  // namespace v0
}  // namespace ashlar
