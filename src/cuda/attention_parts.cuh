// SPDX-License-Identifier: Apache-2.0
// Keys of a sequence in parts: what attention to each leaves behind, and how the parts are put together.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "src/cuda/attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {

constexpr int kMostParts = 128;
constexpr float kLog2e = 1.4426950408889634f;

// How keys are cut: nothing here depends on the other sequences.
struct Parts {
  int most;  // of a sequence and head
  __host__ __device__ int size(int keys) const {
    int size = keys <= 2048 ? 128 : 256;
    while (size * most < keys) size *= 2;
    return size;
  }
  __host__ __device__ int count(int keys) const { return (keys + size(keys) - 1) / size(keys); }
};

// The first key that a query of the sequence sees.
__host__ __device__ inline int first_key(const AttentionCall& c, const AttentionSequence& s) {
  const int first = c.mask.first_key(s.end - s.queries);
  return first > s.start ? first : s.start;
}

struct Partial {
  float* out;    // [rows of q times heads, parts, value_dim]
  float* stats;  // [.., parts, 2]: the largest score and the sum, to the base 2
  int parts;
};

// Writes out and lse of all sequences of more than one part, in the order of the parts.
void merge_parts(const AttentionCall& call, const Parts& parts, const Partial& partial, CudaExec& exec);

__device__ __forceinline__ void store_out(const AttentionCall& c, std::int64_t at, float x) {
  if (c.out_type == DType::f32)
    static_cast<float*>(c.out)[at] = x;
  else if (c.out_type == DType::f16)
    static_cast<__half*>(c.out)[at] = __float2half_rn(x);
  else
    static_cast<__nv_bfloat16*>(c.out)[at] = __float2bfloat16_rn(x);
}

// What the sum is with a head's sink, and how what was summed before is scaled then.
__device__ __forceinline__ float with_sink(const AttentionCall& c, int h, float& largest, float& sum) {
  if (c.sinks == nullptr) return 1;
  const float sink = c.sinks[h] * kLog2e, before = largest;
  largest = fmaxf(largest, sink);
  const float factor = before == -INFINITY ? 0.0f : exp2f(before - largest);
  sum = sum * factor + exp2f(sink - largest);
  return factor;
}
__device__ __forceinline__ void store_lse(const AttentionCall& c, int t, int h, float largest, float sum) {
  if (c.lse != nullptr)
    c.lse[t * c.lse_row + h * c.lse_head] = sum > 0 ? (largest + log2f(sum)) / kLog2e : -INFINITY;
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
