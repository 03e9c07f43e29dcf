// SPDX-License-Identifier: Apache-2.0
// Softmax attention forward on Hopper: two or three warpgroups of 64 queries each walk over tiles of keys and
// values that a fourth brings by the copy engine. The warpgroups take turns with their products, so that the
// exponentials of one run beside the products of another, and each begins the scores of a tile before it is
// done with the one before (FlashAttention-3: Shah et al., 2024). The scores stay in registers, as the left
// factor of the second product.
#pragma once
#include "src/cuda/sm90/forward_load.cuh"
#include "src/cuda/sm90/forward_rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace sm90 {

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
      int tile = first_lane ? b.tile[slot] : 0;
      release(&b.tile_empty[slot]);
      tile = __shfl_sync(~0u, tile, 0);
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
