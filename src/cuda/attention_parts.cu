// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_parts.cuh"

#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 128;

// A block a query and head.
__global__ void __launch_bounds__(kThreads)
    merge_part(const __grid_constant__ AttentionCall c, const Parts parts_of, const Partial partial) {
  let_next_start();
  wait_for_previous();
  const AttentionSequence& s = c.sequences[blockIdx.z];
  const int query = blockIdx.y, h = blockIdx.x;
  if (query >= s.queries) return;
  const int parts = parts_of.count(s.end - first_key(c, s)), t = s.first_query + query;
  if (parts == 1) return;
  const std::int64_t first = (static_cast<std::int64_t>(t) * c.heads + h) * partial.parts;
  __shared__ float factors[kMostParts];
  __shared__ float whole[2];
  if (threadIdx.x < kWarp) {
    const int lane = threadIdx.x;
    float most = -INFINITY;
    for (int i = lane; i < parts; i += kWarp) most = fmaxf(most, partial.stats[2 * (first + i)]);
    most = max_of_warp(most);
    float sum = 0;
    for (int i = lane; i < parts; i += kWarp) {
      const float mine = partial.stats[2 * (first + i)];
      const float factor = mine == -INFINITY ? 0.0f : exp2f(mine - most);
      factors[i] = factor, sum += factor * partial.stats[2 * (first + i) + 1];
    }
    sum = sum_of_warp(sum);
    if (lane == 0) {
      const float factor = with_sink(c, h, most, sum);
      whole[0] = sum > 0 ? factor / sum : 0.0f;
      store_lse(c, t, h, most, sum);
    }
  }
  __syncthreads();
  for (int d = threadIdx.x; d < c.value_dim; d += kThreads) {
    const float* const out = partial.out + first * c.value_dim + d;
    float value = 0;
#pragma unroll 16
    for (int i = 0; i < parts; ++i) value = fmaf(factors[i], out[i * c.value_dim], value);
    store_out(c, t * c.out_row + h * c.out_head + d, value * whole[0]);
  }
}

}  // namespace

void merge_parts(const AttentionCall& c, const Parts& parts, const Partial& partial, CudaExec& exec) {
  launch(exec, "softmax_attention", merge_part,
         {{static_cast<unsigned>(c.heads), static_cast<unsigned>(c.most_queries),
           static_cast<unsigned>(c.count)},
          kThreads},
         c, parts, partial);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
