// SPDX-License-Identifier: Apache-2.0
// The online softmax of a warpgroup's rows in registers, and how their outputs are written.
#pragma once
#include <algorithm>

#include "src/cuda/sm90/forward_call.cuh"

namespace ashlar {
inline namespace v0 {
namespace sm90 {

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
      sum[r] = fmaf(sum[r], factors[r], exponentials(c, s, r, base));
    }
  }

 private:
  // Of row r; returns their sum.
  __device__ __forceinline__ static float exponentials(const ForwardCall& c, float (&s)[kScores], int r,
                                                       float base) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < S::kN / 4; ++i) {
      float& x = s[4 * (i / 2) + 2 * r + i % 2];
      x = exp2_fast(fmaf(x, c.scale_log2, -base));
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

}  // namespace sm90
}  // namespace v0
}  // namespace ashlar
