// SPDX-License-Identifier: Apache-2.0
// Softmax attention forward on Hopper: two or three warpgroups of 64 queries each walk over tiles of keys and
// values that a fourth brings by the copy engine. The warpgroups take turns with their products, so that the
// exponentials of one run beside the products of another, and each begins the scores of a tile before it is
// done with the one before (FlashAttention-3: Shah et al., 2024). The scores stay in registers, as the left
// factor of the second product.
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

// kD, kDv: dims of keys and values, kN: keys a tile.
template <int kD_, int kDv_, int kN_, int kGroups_, int kStages_, bool kBf16_, bool kTurns_ = true>
struct ForwardShape {
  static constexpr int kD = kD_, kDv = kDv_, kN = kN_, kGroups = kGroups_, kStages = kStages_;
  static constexpr bool kBf16 = kBf16_, kTurns = kTurns_;
  static constexpr int kM = 64 * kGroups, kThreads = 128 * (kGroups + 1);
  static constexpr int kChunks = (kD + kChunk - 1) / kChunk, kValueChunks = (kDv + kChunk - 1) / kChunk;
  static constexpr int kProducerRegisters = kGroups == 2 ? 40 : 32, kRegisters = kGroups == 2 ? 232 : 160;
  static constexpr int kQBytes = kChunks * 64 * 128;  // of one warpgroup
  static constexpr int kKBytes = kChunks * kN * 128, kVBytes = kValueChunks * kN * 128;
  static constexpr int kBytes = kGroups * kQBytes + kStages * (kKBytes + kVBytes) + 1024;
};

template <class S>
struct ForwardBarriers {
  Barrier q_full[S::kGroups], q_empty[S::kGroups];
  Barrier k_full[S::kStages], k_empty[S::kStages], v_full[S::kStages], v_empty[S::kStages];
  Barrier tile_full[2], tile_empty[2];
  int tile[2];
};

// One tile of queries of one head: its rows and the key tiles [low, high) that they see.
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
  const int place = t.sequence.keys - t.sequence.queries + t.row;  // of the first row
  int begin = 0, end = t.sequence.keys;
  if (c.left >= 0) begin = max(begin, place - c.left);
  if (c.right >= 0) end = min(end, place + t.rows + c.right);
  if (t.rows <= 0) end = 0;
  t.low = begin / S::kN, t.high = end > begin ? (end + S::kN - 1) / S::kN : t.low;
  return t;
}

template <class S>
__device__ __forceinline__ void forward_load_keys(const ForwardCall& c, unsigned char* k, unsigned char* v,
                                                  ForwardBarriers<S>& b) {
  Ring<S::kStages> kr, vr;
  int tile = blockIdx.x;
  for (int turn = 0;; ++turn) {
    const int slot = turn & 1;
    barrier_wait(&b.tile_empty[slot], ((turn >> 1) & 1) ^ 1);
    b.tile[slot] = tile;
    barrier_arrive(&b.tile_full[slot]);
    if (tile >= c.tiles) return;
    int next = tile + gridDim.x;
    if (c.next_tile != nullptr) {
      const int taken = atomicAdd(c.next_tile, 1);
      if (taken == c.tiles - 1) *c.next_tile = 0;  // of the last of all blocks
      next = gridDim.x + taken;
    }
    const ForwardTile t = forward_tile<S>(c, tile);
    if (t.high > t.low) {
      const ForwardMaps* const maps = c.maps != nullptr ? c.maps + t.n : c.few + t.n;
      if (c.maps != nullptr) acquire(&maps->k), acquire(&maps->v);
      const int kv_head = t.head / c.group;
      auto load_k = [&](int at) {
        barrier_wait(&b.k_empty[kr.stage], kr.phase ^ 1);
        barrier_expect(&b.k_full[kr.stage], S::kKBytes);
#pragma unroll
        for (int x = 0; x < S::kChunks; ++x)
          load_tile(k + kr.stage * S::kKBytes + x * S::kN * 128, &maps->k, x * kChunk, kv_head, at * S::kN,
                    &b.k_full[kr.stage]);
        kr.next();
      };
      auto load_v = [&](int at) {
        barrier_wait(&b.v_empty[vr.stage], vr.phase ^ 1);
        barrier_expect(&b.v_full[vr.stage], S::kVBytes);
#pragma unroll
        for (int x = 0; x < S::kValueChunks; ++x)
          load_tile(v + vr.stage * S::kVBytes + x * S::kN * 128, &maps->v, x * kChunk, kv_head, at * S::kN,
                    &b.v_full[vr.stage]);
        vr.next();
      };
      load_k(t.high - 1);
      for (int at = t.high - 2; at >= t.low; --at) load_k(at), load_v(at + 1);
      load_v(t.low);
    }
    tile = next;
  }
}

template <class S>
__device__ __forceinline__ void forward_load_queries(const ForwardCall& c, unsigned char* q,
                                                     ForwardBarriers<S>& b) {
  std::uint32_t phase = 1;
  for (int turn = 0;; ++turn) {
    const int slot = turn & 1;
    barrier_wait(&b.tile_full[slot], (turn >> 1) & 1);
    const int tile = b.tile[slot];
    barrier_arrive(&b.tile_empty[slot]);
    if (tile >= c.tiles) return;
    const ForwardTile t = forward_tile<S>(c, tile);
    if (t.high <= t.low) continue;
    for (int g = 0; g < S::kGroups; ++g) {
      barrier_wait(&b.q_empty[g], phase);
      barrier_expect(&b.q_full[g], S::kQBytes);
#pragma unroll
      for (int x = 0; x < S::kChunks; ++x)
        load_tile(q + g * S::kQBytes + x * 64 * 128, &c.q, x * kChunk, t.head,
                  t.sequence.first_query + t.row + 64 * g, &b.q_full[g]);
    }
    phase ^= 1;
  }
}

template <bool kBf16>
__device__ __forceinline__ std::uint32_t pack(float a, float b) {
  std::uint32_t r;
  if constexpr (kBf16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
  return r;
}
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float tanh_fast(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The online softmax of two rows a thread, r = 0 and 1, whose other columns are in the three lanes beside it.
template <class S>
struct ForwardRows {
  static constexpr int kScores = S::kN / 2;
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  int begin[2], end[2];  // keys that the row sees

  // s becomes e^(s - largest); returns in `factors` what came before is multiplied with.
  __device__ __forceinline__ void step(const ForwardCall& c, float (&s)[kScores], int first, bool masked,
                                       float (&factors)[2]) {
    if (c.cap_scale != 0) {
#pragma unroll
      for (int i = 0; i < kScores; ++i) s[i] = tanh_fast(s[i] * c.cap_scale);
    }
    if (masked) {
      const int column = first + 2 * (threadIdx.x % 4);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int from = begin[r] - column, to = end[r] - column;
#pragma unroll
        for (int i = 0; i < S::kN / 8; ++i)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (8 * i + e < from || 8 * i + e >= to) s[4 * i + 2 * r + e] = -INFINITY;
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = largest[r];
#pragma unroll
      for (int i = 0; i < S::kN / 8; ++i) m = fmaxf(m, fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
      const float base = m == -INFINITY ? 0 : m * c.scale_log2;
      factors[r] = exp2_fast(largest[r] * c.scale_log2 - base);
      largest[r] = m;
      float total = 0;
#pragma unroll
      for (int i = 0; i < S::kN / 8; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[4 * i + 2 * r + e];
          x = exp2_fast(fmaf(x, c.scale_log2, -base));
          total += x;
        }
      sum[r] = fmaf(sum[r], factors[r], total);
    }
  }
};

// Four lanes hold columns 2 t, 2 t + 1 of each of four blocks of eight; afterwards lane t has block t.
__device__ __forceinline__ void transpose4(std::uint32_t (&x)[4]) {
  const int t = threadIdx.x % 4;
  const bool odd = (t & 1) != 0, high = (t & 2) != 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t got = __shfl_xor_sync(~0u, odd ? x[i] : x[i + 1], 1);
    (odd ? x[i] : x[i + 1]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t got = __shfl_xor_sync(~0u, high ? x[i] : x[i + 2], 2);
    (high ? x[i] : x[i + 2]) = got;
  }
}

template <class S>
__device__ __forceinline__ void forward_store(const ForwardCall& c, const ForwardTile& t, int row,
                                              const float (&scale)[2], float (&o)[S::kDv / 2]) {
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int at = row + 8 * r;
    const bool inside = at < t.rows;
    const std::int64_t to = (t.sequence.first_query + t.row + at) * c.out_row + t.head * c.out_head;
    if (c.f32_out != 0) {
      float* const out = static_cast<float*>(c.out) + to + 2 * lane;
#pragma unroll
      for (int i = 0; i < S::kDv / 8; ++i)
        if (inside && 8 * i < c.value_dim)
          *reinterpret_cast<float2*>(out + 8 * i) =
              make_float2(o[4 * i + 2 * r] * scale[r], o[4 * i + 2 * r + 1] * scale[r]);
      continue;
    }
    std::uint16_t* const out = static_cast<std::uint16_t*>(c.out) + to + 8 * lane;
#pragma unroll
    for (int i = 0; i < S::kDv / 8; i += 4) {
      std::uint32_t x[4];
#pragma unroll
      for (int e = 0; e < 4; ++e)
        x[e] = pack<S::kBf16>(o[4 * (i + e) + 2 * r] * scale[r], o[4 * (i + e) + 2 * r + 1] * scale[r]);
      transpose4(x);
      if (inside && 8 * (i + lane) < c.value_dim)
        *reinterpret_cast<uint4*>(out + 8 * i) = make_uint4(x[0], x[1], x[2], x[3]);
    }
  }
}

template <class S>
__device__ __forceinline__ void forward_products(const ForwardCall& c, unsigned char* q_tiles,
                                                 unsigned char* k, unsigned char* v, ForwardBarriers<S>& b) {
  using Scores = Wgmma<S::kN, S::kBf16>;
  using Values = Wgmma<S::kDv, S::kBf16>;
  const int g = threadIdx.x / 128 - 1;
  const bool first_lane = threadIdx.x % 32 == 0;
  const int row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;  // and row + 8, of the warpgroup's 64
  const std::uint64_t q_at = tile_descriptor(shared_address(q_tiles + g * S::kQBytes));
  const std::uint64_t k_at = tile_descriptor(shared_address(k));
  const std::uint64_t v_at = tile_descriptor(shared_address(v), S::kN * 128);
  constexpr int kTurn = 1;  // the first named barrier
  if (S::kTurns && g == S::kGroups - 1) named_arrive(kTurn, 256);

  float s[S::kN / 2], o[S::kDv / 2];
  std::uint32_t p[S::kN / 4];
  Ring<S::kStages> kr, vr;
  std::uint32_t q_phase = 0;
  auto scores = [&] {
    const std::uint64_t at = advance(k_at, kr.stage * S::kKBytes);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < S::kD / 16; ++i)
      Scores::both(s, advance(q_at, i / 4 * 64 * 128 + i % 4 * 32),
                   advance(at, i / 4 * S::kN * 128 + i % 4 * 32), i > 0);
    wgmma_commit();
  };
  auto values = [&] {
    const std::uint64_t at = advance(v_at, vr.stage * S::kVBytes);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < S::kN / 16; ++i) Values::left(o, p + 4 * i, advance(at, i * 16 * 128));
    wgmma_commit();
  };
  auto pack_scores = [&] {
#pragma unroll
    for (int i = 0; i < S::kN / 4; ++i) p[i] = pack<S::kBf16>(s[2 * i], s[2 * i + 1]);
  };
  auto release = [&](Barrier* empty) {
    if (first_lane) barrier_arrive(empty);
  };

  for (int turn = 0;; ++turn) {
    const int slot = turn & 1;
    barrier_wait(&b.tile_full[slot], (turn >> 1) & 1);
    const int tile = b.tile[slot];
    __syncwarp();
    release(&b.tile_empty[slot]);
    if (tile >= c.tiles) return;
    const ForwardTile t = forward_tile<S>(c, tile);
    const int first_row = 64 * g, place = t.sequence.keys - t.sequence.queries + t.row + first_row;
    ForwardRows<S> rows;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int at = place + row + 8 * r;
      rows.begin[r] = c.left >= 0 ? at - c.left : 0;
      rows.end[r] = c.right >= 0 ? min(t.sequence.keys, at + c.right + 1) : t.sequence.keys;
    }
    // Key tiles inside of these bounds are seen by all rows.
    const int all_from = c.left >= 0 ? place + 63 - c.left : 0;
    const int all_to = c.right >= 0 ? min(t.sequence.keys, place + c.right + 1) : t.sequence.keys;
    auto masked = [&](int at) { return at * S::kN < all_from || at * S::kN + S::kN > all_to; };
#pragma unroll
    for (int i = 0; i < S::kDv / 2; ++i) o[i] = 0;
    if (t.high > t.low) {
      float factors[2];
      barrier_wait(&b.q_full[g], q_phase);
      q_phase ^= 1;
      barrier_wait(&b.k_full[kr.stage], kr.phase);
      pin(s);
      scores();
      wgmma_wait<0>();
      pin(s);
      release(&b.k_empty[kr.stage]);
      kr.next();
      rows.step(c, s, (t.high - 1) * S::kN, masked(t.high - 1), factors);
      pack_scores();
      for (int at = t.high - 2; at >= t.low; --at) {
        barrier_wait(&b.k_full[kr.stage], kr.phase);
        if (S::kTurns) named_sync(kTurn + g, 256);
        pin(s);
        scores();
        barrier_wait(&b.v_full[vr.stage], vr.phase);
        pin(o), pin(p);
        values();
        if (S::kTurns) named_arrive(kTurn + (g + 1 == S::kGroups ? 0 : g + 1), 256);
        wgmma_wait<1>();
        pin(s);
        release(&b.k_empty[kr.stage]);
        kr.next();
        rows.step(c, s, at * S::kN, masked(at), factors);
        wgmma_wait<0>();
        pin(o), pin(p);
        release(&b.v_empty[vr.stage]);
        vr.next();
        pack_scores();
#pragma unroll
        for (int i = 0; i < S::kDv / 2; ++i) o[i] *= factors[i / 2 % 2];
      }
      release(&b.q_empty[g]);
      barrier_wait(&b.v_full[vr.stage], vr.phase);
      pin(o), pin(p);
      values();
      wgmma_wait<0>();
      pin(o), pin(p);
      release(&b.v_empty[vr.stage]);
      vr.next();
    }
    float scale[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = rows.sum[r];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      float base = rows.largest[r] == -INFINITY ? -INFINITY : rows.largest[r] * c.scale_log2;
      float factor = 1;
      if (c.sinks != nullptr) {
        const float sink = c.sinks[t.head] * 1.4426950408889634f, m = fmaxf(base, sink);
        if (m != -INFINITY) {
          factor = exp2f(base - m), sum = sum * factor + exp2f(sink - m);
          base = m;
        }
      }
      scale[r] = sum > 0 ? factor / sum : 0;
      const int at = first_row + row + 8 * r;
      if (c.lse != nullptr && threadIdx.x % 4 == 0 && at < t.rows)
        c.lse[(t.sequence.first_query + t.row + at) * c.lse_row + t.head * c.lse_head] =
            sum > 0 ? (base + log2f(sum)) * 0.6931471805599453f : -INFINITY;
    }
    forward_store<S>(c, t, first_row + row, scale, o);
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) attention_forward(const __grid_constant__ ForwardCall c) {
  extern __shared__ unsigned char shared[];
  __shared__ ForwardBarriers<S> b;
  unsigned char* const q = shared + (1024 - shared_address(shared) % 1024) % 1024;
  unsigned char* const k = q + S::kGroups * S::kQBytes;
  unsigned char* const v = k + S::kStages * S::kKBytes;
  if (threadIdx.x == 0) {
    constexpr int kWarps = 4 * S::kGroups;
    for (int g = 0; g < S::kGroups; ++g) barrier_init(&b.q_full[g], 1), barrier_init(&b.q_empty[g], 4);
    for (int i = 0; i < S::kStages; ++i) {
      barrier_init(&b.k_full[i], 1), barrier_init(&b.k_empty[i], kWarps);
      barrier_init(&b.v_full[i], 1), barrier_init(&b.v_empty[i], kWarps);
    }
    for (int i = 0; i < 2; ++i) barrier_init(&b.tile_full[i], 1), barrier_init(&b.tile_empty[i], kWarps + 1);
    barrier_init_fence();
  }
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<S::kProducerRegisters>();
    if (threadIdx.x == 0) forward_load_keys<S>(c, k, v, b);
    if (threadIdx.x == 32) forward_load_queries<S>(c, q, b);
  } else {
    take_registers<S::kRegisters>();
    forward_products<S>(c, q, k, v, b);
  }
}

}  // namespace sm90
}  // namespace v0
}  // namespace ashlar
