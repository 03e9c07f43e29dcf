// SPDX-License-Identifier: Apache-2.0
// What a warp of the decode kernel has in registers: rows of keys and values, and the softmax over them.
#pragma once
#include "src/cuda/attention.hpp"
#include "src/cuda/mma.cuh"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {

constexpr int kWarps = 4, kThreads = kWarps * kWarp, kKeys = 16, kTile = kWarps * kKeys;
constexpr int kRowsATile = 8;
constexpr float kLog2e = 1.4426950408889634f;

// Two neighbouring elements of a query, from f32 or as they are.
template <class T>
__device__ __forceinline__ unsigned load_pair(const AttentionCall& c, std::int64_t at) {
  if (c.q_type == DType::f32) {
    const float* q = static_cast<const float*>(c.q) + at;
    return pack<T>(q[0], q[1]);
  }
  return *reinterpret_cast<const unsigned*>(static_cast<const T*>(c.q) + at);
}

// 8 channels of a row, read once.
template <class T>
__device__ __forceinline__ uint4 load_channels(const T* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// An 8 x 8 matrix of 16-bit elements, two a lane, with rows and columns exchanged.
__device__ __forceinline__ unsigned transpose(unsigned x) {
  unsigned y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// A lane's part of 16 rows of keys or values: 8 of each 32 channels, of the rows g and g + 8, g = lane / 4.
// The order of channels does not matter in a product as long as both sides have the same: products take
// channels 8 t + {0, 1, 2, 3} of 32 together, then 8 t + {4, 5, 6, 7}, t = lane % 4.
template <int kDim>
struct KeyRows {
  static constexpr int kBlocks = (kDim + 31) / 32;
  uint4 low[kBlocks], high[kBlocks];

  template <class T>
  __device__ __forceinline__ void load(const T* g, const T* g8) {
    const int d = threadIdx.x % 4 * 8;
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      const bool there = kDim % 32 == 0 || 32 * i + d < kDim;
      low[i] = g != nullptr && there ? load_channels(g + 32 * i + d) : uint4{0, 0, 0, 0};
      high[i] = g8 != nullptr && there ? load_channels(g8 + 32 * i + d) : uint4{0, 0, 0, 0};
    }
  }
};

// The online softmax of a warp's rows of queries over its keys. A lane has the rows 2 t and 2 t + 1 of each
// tile of 8, and of a tile of keys g and g + 8.
template <class T, int kTiles, int kValueDim>
struct QueryRows {
  static constexpr int kValueBlocks = KeyRows<kValueDim>::kBlocks;
  int position[kTiles][2];
  float largest[kTiles][2], sum[kTiles][2] = {}, out[kTiles][2 * kValueBlocks][4] = {};

  // Row r is of query r / group, the first of which stands at `place`.
  __device__ __forceinline__ QueryRows(int place, int group) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        largest[n][e] = -INFINITY;
        position[n][e] = place + (n * kRowsATile + static_cast<int>(threadIdx.x) % 4 * 2 + e) / group;
      }
  }

  // Products of a tile's queries and keys to weights, in the order of the second product's factor; `first` is
  // the lane's first key, partly: some of the keys to `end` may be hidden or not there.
  __device__ __forceinline__ void weigh(const AttentionCall& c, int n, float (&score)[4], int first, int end,
                                        bool partly, unsigned (&weights)[2]) {
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int e = 0; e < 4; ++e) {  // keys g and g + 8, rows 2 t and 2 t + 1
      float x = score[e];
      x = c.soft_cap != 0 ? c.soft_cap * kLog2e * tanhf(x * c.scale / c.soft_cap) : x * (c.scale * kLog2e);
      if (partly) {
        const int j = first + e / 2 * 8;
        if (j >= end || !c.mask.visible_simple(position[n][e % 2], j)) x = -INFINITY;
      }
      score[e] = x, top[e % 2] = fmaxf(top[e % 2], x);
    }
#pragma unroll
    for (int d = 4; d < kWarp; d *= 2)
#pragma unroll
      for (int e = 0; e < 2; ++e) top[e] = fmaxf(top[e], __shfl_xor_sync(~0u, top[e], d));
    if (__any_sync(~0u, top[0] > largest[n][0] || top[1] > largest[n][1])) raise(n, top);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float p = score[e] == -INFINITY ? 0.0f : exp2_fast(score[e] - largest[n][e % 2]);
      score[e] = p, sum[n][e % 2] += p;
    }
    weights[0] = transpose(pack<T>(score[0], score[1]));
    weights[1] = transpose(pack<T>(score[2], score[3]));
  }

  __device__ __forceinline__ void add(const KeyRows<kValueDim>& v, const unsigned (&weights)[kTiles][2]) {
#pragma unroll
    for (int i = 0; i < kValueBlocks; ++i) {
      const unsigned first[4] = {transpose(v.low[i].x), transpose(v.low[i].y), transpose(v.high[i].x),
                                 transpose(v.high[i].y)};
      const unsigned second[4] = {transpose(v.low[i].z), transpose(v.low[i].w), transpose(v.high[i].z),
                                  transpose(v.high[i].w)};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        multiply<T>(out[n][2 * i], first, weights[n][0], weights[n][1]);
        multiply<T>(out[n][2 * i + 1], second, weights[n][0], weights[n][1]);
      }
    }
  }

  // To shared memory: for each row kValueDim sums, and its largest score and the sum of its weights.
  __device__ __forceinline__ void share(float* shares, float* stats) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        for (int d = 4; d < kWarp; d *= 2) sum[n][e] += __shfl_xor_sync(~0u, sum[n][e], d);
        const int r = n * kRowsATile + 2 * t + e;
        if (g == 0) stats[2 * r] = largest[n][e], stats[2 * r + 1] = sum[n][e];
#pragma unroll
        for (int i = 0; i < 2 * kValueBlocks; ++i) {
          // A transposed pair (x, y) of rows g has channels 8 (g / 2) + g % 2, of the first and of the second
          // pair.
          const int d = 32 * (i / 2) + g / 2 * 8 + i % 2 * 4 + g % 2;
          float* const to = shares + r * kValueDim + d;
          if (d < kValueDim) to[0] = out[n][i][e], to[2] = out[n][i][e + 2];
        }
      }
  }

 private:
  __device__ __forceinline__ void raise(int n, const float (&top)[2]) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float now = fmaxf(largest[n][e], top[e]);
      const float factor = largest[n][e] == -INFINITY ? 0.0f : exp2_fast(largest[n][e] - now);
      largest[n][e] = now, sum[n][e] *= factor;
#pragma unroll
      for (int i = 0; i < 2 * kValueBlocks; ++i) out[n][i][e] *= factor, out[n][i][e + 2] *= factor;
    }
  }
};

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
