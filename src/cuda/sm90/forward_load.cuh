// SPDX-License-Identifier: Apache-2.0
// The warpgroup that brings queries, keys and values to shared memory by the copy engine.
#pragma once
#include "src/cuda/sm90/forward_call.cuh"

namespace ashlar {
inline namespace v0 {
namespace sm90 {

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

}  // namespace sm90
}  // namespace v0
}  // namespace ashlar
