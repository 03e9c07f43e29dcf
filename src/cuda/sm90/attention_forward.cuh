// SPDX-License-Identifier: Apache-2.0
// Softmax attention forward on Hopper: two or three warpgroups of 64 queries each walk over tiles of keys and
// values that a fourth brings by the copy engine. The warpgroups take turns with their products, so that the
// exponentials of one run beside the products of another, and each begins the scores of a tile before it is
// done with the one before (FlashAttention-3: Shah et al., 2024). The scores stay in registers, as the left
// factor of the second product.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

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

// kD, kDv: dims of keys and values, kN: keys a tile, kGroups: warpgroups of 64 queries. Of the exponentials
// one in kPolynomial is made of multiplications (0: none).
template <int kD_, int kDv_, int kN_, int kGroups_, int kStages_, int kQStages_, int kPolynomial_,
          bool kBf16_>
struct ForwardShape {
  static constexpr int kD = kD_, kDv = kDv_, kN = kN_, kGroups = kGroups_, kStages = kStages_;
  static constexpr int kQStages = kQStages_, kPolynomial = kPolynomial_;
  static constexpr bool kBf16 = kBf16_;
  static constexpr int kM = 64 * kGroups, kThreads = 128 * (kGroups + 1);
  static constexpr int kChunks = (kD + kChunk - 1) / kChunk, kValueChunks = (kDv + kChunk - 1) / kChunk;
  static constexpr int kProducerRegisters = kGroups == 2 ? 48 : 32, kRegisters = kGroups == 2 ? 232 : 160;
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
  Ring<S::kQStages> qr;
  for (int turn = 0;; ++turn) {
    const int slot = turn & 1;
    barrier_wait(&b.tile_full[slot], (turn >> 1) & 1);
    const int tile = b.tile[slot];
    barrier_arrive(&b.tile_empty[slot]);
    if (tile >= c.tiles) return;
    const ForwardTile t = forward_tile<S>(c, tile);
    if (t.high <= t.low) continue;
#pragma unroll 1
    for (int g = 0; g < S::kGroups; ++g) {
      barrier_wait(&b.q_empty[qr.stage][g], qr.phase ^ 1);
      barrier_expect(&b.q_full[qr.stage][g], S::kQBytes);
#pragma unroll
      for (int x = 0; x < S::kChunks; ++x)
        load_tile(q + (qr.stage * S::kGroups + g) * S::kQBytes + x * 64 * 128, &c.q, x * kChunk, t.head,
                  t.sequence.first_query + t.row + 64 * g, &b.q_full[qr.stage][g]);
    }
    qr.next();
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
// 2^x for x <= 0, without the unit that has exp2_fast: 2^n of the nearest integer, by its bits, times a
// polynomial in the rest, of relative error 7.5e-5.
__device__ __forceinline__ float exp2_polynomial(float x) {
  constexpr float kRound = 12582912;  // 1.5 2^23
  x = fmaxf(x, -126.0f);
  const float n = x + kRound, f = x - (n - kRound);
  const float p = fmaf(fmaf(fmaf(0.05517167f, f, 0.24261112f), f, 0.69326099f), f, 0.99992807f);
  return __int_as_float(__float_as_int(p) + (__float_as_int(n) << 23));
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
      if (S::kPolynomial == 0 || masked)
        sum[r] = fmaf(sum[r], factors[r], exponentials<false>(c, s, r, base));
      else
        sum[r] = fmaf(sum[r], factors[r], exponentials<true>(c, s, r, base));
    }
  }

 private:
  // Of row r; returns their sum.
  template <bool kSome>
  __device__ __forceinline__ static float exponentials(const ForwardCall& c, float (&s)[kScores], int r,
                                                       float base) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < S::kN / 4; ++i) {
      float& x = s[4 * (i / 2) + 2 * r + i % 2];
      const float y = fmaf(x, c.scale_log2, -base);
      if constexpr (kSome)
        x = i % std::max(1, S::kPolynomial) == 0 ? exp2_polynomial(y) : exp2_fast(y);
      else
        x = exp2_fast(y);
      total += x;
    }
    return total;
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

// Rows that see no key.
template <class S>
__device__ __forceinline__ void forward_nothing(const ForwardCall& c, const ForwardTile& t, int row) {
#pragma unroll 1
  for (int at = row; at < min(t.rows, row + 9); at += 8) {
    const std::int64_t token = t.sequence.first_query + t.row + at;
    if (c.lse != nullptr && threadIdx.x % 4 == 0)
      c.lse[token * c.lse_row + t.head * c.lse_head] = c.sinks != nullptr ? c.sinks[t.head] : -INFINITY;
    const std::int64_t to = token * c.out_row + t.head * c.out_head;
#pragma unroll 1
    for (int x = threadIdx.x % 4; x < c.value_dim; x += 4) {
      if (c.f32_out != 0)
        static_cast<float*>(c.out)[to + x] = 0;
      else
        static_cast<std::uint16_t*>(c.out)[to + x] = 0;
    }
  }
}

// What is left of a tile when its sums are complete.
template <class S>
__device__ __forceinline__ void forward_finish(const ForwardCall& c, const ForwardTile& t, int row,
                                               const ForwardRows<S>& rows, float (&o)[S::kDv / 2]) {
  float scale[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = rows.sum[r], factor = 1;
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    float base = rows.largest[r] == -INFINITY ? -INFINITY : rows.largest[r] * c.scale_log2;
    if (c.sinks != nullptr) {
      const float sink = c.sinks[t.head] * 1.4426950408889634f, m = fmaxf(base, sink);
      if (m != -INFINITY) {
        factor = exp2f(base - m), sum = sum * factor + exp2f(sink - m);
        base = m;
      }
    }
    scale[r] = sum > 0 ? factor / sum : 0;
    const int at = row + 8 * r;
    if (c.lse != nullptr && threadIdx.x % 4 == 0 && at < t.rows)
      c.lse[(t.sequence.first_query + t.row + at) * c.lse_row + t.head * c.lse_head] =
          sum > 0 ? (base + log2f(sum)) * 0.6931471805599453f : -INFINITY;
  }
  forward_store<S>(c, t, row, scale, o);
}

template <class S>
__device__ __forceinline__ void forward_products(const ForwardCall& c, unsigned char* q_tiles,
                                                 unsigned char* k, unsigned char* v, ForwardBarriers<S>& b) {
  using Scores = Wgmma<S::kN, S::kBf16>;
  using Values = Wgmma<S::kDv, S::kBf16>;
  const int g = threadIdx.x / 128 - 1;
  const bool first_lane = threadIdx.x % 32 == 0;
  const int row = 64 * g + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;  // and row + 8
  const std::uint64_t q_at = tile_descriptor(shared_address(q_tiles + g * S::kQBytes));
  const std::uint64_t k_at = tile_descriptor(shared_address(k));
  const std::uint64_t v_at = tile_descriptor(shared_address(v), S::kN * 128);
  constexpr int kTurn = 1;  // the first named barrier
  if (g == S::kGroups - 1) named_arrive(kTurn, 256);

  float s[S::kN / 2], o[S::kDv / 2], factors[2];
  std::uint32_t p[S::kN / 4];
  Ring<S::kStages> kr, vr;
  Ring<S::kQStages> qr;  // of the tile whose scores come next
  auto scores = [&] {
    const std::uint64_t at = advance(k_at, kr.stage * S::kKBytes),
                        left = advance(q_at, qr.stage * S::kGroups * S::kQBytes);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < S::kD / 16; ++i)
      Scores::both(s, advance(left, i / 4 * 64 * 128 + i % 4 * 32),
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
  auto zero = [&] {
#pragma unroll
    for (int i = 0; i < S::kDv / 2; ++i) o[i] = 0;
  };
  auto release = [&](Barrier* empty) {
    if (first_lane) barrier_arrive(empty);
  };
  auto release_keys = [&] {
    release(&b.k_empty[kr.stage]);
    kr.next();
  };
  auto release_values = [&] {
    release(&b.v_empty[vr.stage]);
    vr.next();
  };
  auto take_turn = [&] { named_sync(kTurn + g, 256); };
  auto give_turn = [&] { named_arrive(kTurn + (g + 1 == S::kGroups ? 0 : g + 1), 256); };

  int turn = 0;
  // The next tile that has keys, or one behind the last. Rows of those without are written on the way.
  auto next_tile = [&] {
    for (;; ++turn) {
      const int slot = turn & 1;
      barrier_wait(&b.tile_full[slot], (turn >> 1) & 1);
      const int tile = b.tile[slot];
      __syncwarp();
      release(&b.tile_empty[slot]);
      if (tile >= c.tiles) return tile;
      const ForwardTile t = forward_tile<S>(c, tile);
      if (t.high > t.low) {
        ++turn;
        return tile;
      }
      forward_nothing<S>(c, t, row);
    }
  };
  ForwardRows<S> rows;
  int low = 0, high = 0;         // of the tile that rows are of
  int all_from = 0, all_to = 0;  // key tiles inside of these bounds are seen by all of the warpgroup's rows
  auto begin_rows = [&](int tile) {
    const ForwardTile t = forward_tile<S>(c, tile);
    rows = ForwardRows<S>();
    low = t.low, high = t.high;
    const int place = t.sequence.keys - t.sequence.queries + t.row;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int at = place + row + 8 * r;
      rows.begin[r] = c.left >= 0 ? at - c.left : 0;
      rows.end[r] = c.right >= 0 ? min(t.sequence.keys, at + c.right + 1) : t.sequence.keys;
    }
    all_from = c.left >= 0 ? place + 64 * g + 63 - c.left : 0;
    all_to = c.right >= 0 ? min(t.sequence.keys, place + 64 * g + c.right + 1) : t.sequence.keys;
  };
  auto softmax = [&](int at) {
    rows.step(c, s, at * S::kN, at * S::kN < all_from || at * S::kN + S::kN > all_to, factors);
  };

  auto begin = [&] {
    zero();
    barrier_wait(&b.q_full[qr.stage][g], qr.phase);
    barrier_wait(&b.k_full[kr.stage], kr.phase);
    pin(s);
    scores();
    wgmma_wait<0>();
    pin(s);
    release_keys();
    softmax(high - 1);
    pack_scores();
  };
  auto last_values = [&] {
    barrier_wait(&b.v_full[vr.stage], vr.phase);
    pin(o), pin(p);
    values();
    wgmma_wait<0>();
    pin(o), pin(p);
    release_values();
  };

  auto walk = [&] {
    for (int at = high - 2; at >= low; --at) {
      barrier_wait(&b.k_full[kr.stage], kr.phase);
      take_turn();
      pin(s);
      scores();
      barrier_wait(&b.v_full[vr.stage], vr.phase);
      pin(o), pin(p);
      values();
      give_turn();
      wgmma_wait<1>();
      pin(s);
      release_keys();
      softmax(at);
      wgmma_wait<0>();
      pin(o), pin(p);
      release_values();
      pack_scores();
#pragma unroll
      for (int i = 0; i < S::kDv / 2; ++i) o[i] *= factors[i / 2 % 2];
    }
    release(&b.q_empty[qr.stage][g]);
    qr.next();
  };

  int tile = next_tile();
  if constexpr (S::kQStages == 1) {
    for (; tile < c.tiles; tile = next_tile()) {
      begin_rows(tile);
      begin();
      walk();
      last_values();
      forward_finish<S>(c, forward_tile<S>(c, tile), row, rows, o);
    }
    return;
  }
  if (tile >= c.tiles) return;
  begin_rows(tile);
  begin();
  while (true) {
    walk();
    // The last product of this tile beside the first of the next one.
    const int next = next_tile();
    if (next >= c.tiles) break;
    barrier_wait(&b.q_full[qr.stage][g], qr.phase);
    barrier_wait(&b.k_full[kr.stage], kr.phase);
    take_turn();
    pin(s);
    scores();
    barrier_wait(&b.v_full[vr.stage], vr.phase);
    pin(o), pin(p);
    values();
    give_turn();
    const ForwardRows<S> done = rows;
    begin_rows(next);
    wgmma_wait<1>();
    pin(s);
    release_keys();
    softmax(high - 1);
    wgmma_wait<0>();
    pin(o), pin(p);
    release_values();
    pack_scores();
    forward_finish<S>(c, forward_tile<S>(c, tile), row, done, o);
    zero();
    tile = next;
  }
  last_values();
  forward_finish<S>(c, forward_tile<S>(c, tile), row, rows, o);
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) attention_forward(const __grid_constant__ ForwardCall c) {
  extern __shared__ unsigned char shared[];
  __shared__ ForwardBarriers<S> b;
  unsigned char* const q = shared + (1024 - shared_address(shared) % 1024) % 1024;
  unsigned char* const k = q + S::kQStages * S::kGroups * S::kQBytes;
  unsigned char* const v = k + S::kStages * S::kKBytes;
  if (threadIdx.x == 0) {
    constexpr int kWarps = 4 * S::kGroups;
    for (int i = 0; i < S::kQStages; ++i)
      for (int g = 0; g < S::kGroups; ++g)
        barrier_init(&b.q_full[i][g], 1), barrier_init(&b.q_empty[i][g], 4);
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
