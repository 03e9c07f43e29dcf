// SPDX-License-Identifier: Apache-2.0
// What the kernel of attention forward is given, and its tiles of queries.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "src/cuda/sm90/pipeline.cuh"

namespace ashlar {
inline namespace v0 {
namespace sm90 {

// Positions are relative to the first key: query i stands at position keys - queries + i.
struct ForwardSequence {
  int first_query, queries, keys;
};

struct ForwardMaps {
  CUtensorMap k, v;
};

constexpr int kFewMaps = 8;

struct ForwardCall {
  CUtensorMap q;
  ForwardMaps few[kFewMaps];
  ForwardSequence few_sequences[kFewMaps];
  const ForwardMaps* maps;                  // in device memory; null: few
  const ForwardSequence* sequences;         // likewise
  int heads, group;                         // group: query heads a key head
  int row_tiles, unit_group, units, tiles;  // units: (sequence, head); unit_group of them run side by side
  int left, right;                          // query i sees keys i - left to i + right; -1: no limit
  int value_dim, f32_out;
  float scale_log2;  // of the products, or of the capped scores, times log2 e
  float cap_scale;   // scale / cap; 0: no cap
  void* out;
  float* lse;
  const float* sinks;
  std::int64_t out_row, out_head, lse_row, lse_head;
  int* next_tile;  // zero before the kernel and after it; null: tiles in turn
};

// kD, kDv: dims of keys and values, kN: keys a tile, kGroups: warpgroups of 64 queries.
template <int kD_, int kDv_, int kN_, int kGroups_, int kStages_, int kQStages_, bool kBf16_>
struct ForwardShape {
  static constexpr int kD = kD_, kDv = kDv_, kN = kN_, kGroups = kGroups_, kStages = kStages_;
  static constexpr int kQStages = kQStages_;
  static constexpr bool kBf16 = kBf16_;
  static constexpr int kM = 64 * kGroups, kThreads = 128 * (kGroups + 1);
  static constexpr int kChunks = (kD + kChunk - 1) / kChunk, kValueChunks = (kDv + kChunk - 1) / kChunk;
  static constexpr int kProducerRegisters = kGroups == 2 ? 40 : 32, kRegisters = kGroups == 2 ? 232 : 160;
  // Warpgroups pass on what the block was started with; one that asks for more waits forever.
  static_assert(kProducerRegisters + kGroups * kRegisters <= (kGroups + 1) * (65536 / kThreads / 8 * 8));
  static constexpr int kQBytes = kChunks * 64 * 128;  // of one warpgroup
  static constexpr int kKBytes = kChunks * kN * 128, kVBytes = kValueChunks * kN * 128;
  static constexpr int kBytes = kQStages * kGroups * kQBytes + kStages * (kKBytes + kVBytes) + 1024;
};

template <class S>
struct ForwardBarriers {
  Barrier q_full[S::kQStages][S::kGroups], q_empty[S::kQStages][S::kGroups];
  Barrier k_full[S::kStages], k_empty[S::kStages], v_full[S::kStages], v_empty[S::kStages];
  Barrier tile_full[2], tile_empty[2];
  int tile[2];
};

// The key tiles [low, high) that `rows` queries from `row` on see.
struct KeyTiles {
  int low, high;
};
template <class S>
__host__ __device__ __forceinline__ KeyTiles key_tiles(const ForwardSequence& s, int row, int rows, int left,
                                                       int right) {
  const int place = s.keys - s.queries + row;  // of the first row
  int begin = 0, end = s.keys;
  if (left >= 0 && place > left) begin = place - left;
  if (right >= 0 && place + rows + right < end) end = place + rows + right;
  if (rows <= 0) end = 0;
  const int low = begin / S::kN;
  return {low, end > begin ? (end + S::kN - 1) / S::kN : low};
}

// One tile of queries of one head: its rows and its key tiles.
struct ForwardTile {
  ForwardSequence sequence;
  int n, head, row, rows, low, high;
};

template <class S>
__device__ __forceinline__ ForwardTile forward_tile(const ForwardCall& c, int index) {
  ForwardTile t;
  const int all = c.unit_group * c.row_tiles, first = index / all * c.unit_group, rest = index % all;
  const int side = min(c.unit_group, c.units - first);
  int m = rest / side;
  if (c.right >= 0) m = c.row_tiles - 1 - m;  // the longest first
  const int unit = first + rest % side;
  t.n = unit / c.heads, t.head = unit % c.heads;
  t.sequence = c.sequences != nullptr ? c.sequences[t.n] : c.few_sequences[t.n];
  t.row = m * S::kM;
  t.rows = min(S::kM, t.sequence.queries - t.row);
  const auto [low, high] = key_tiles<S>(t.sequence, t.row, t.rows, c.left, c.right);
  t.low = low, t.high = high;
  return t;
}

}  // namespace sm90
}  // namespace v0
}  // namespace ashlar
