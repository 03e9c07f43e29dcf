// SPDX-License-Identifier: Apache-2.0
// Few queries with many keys (flash-decoding; Dao et al., 2023): bound by the memory that keys and values are
// read from. A sequence's keys are cut into parts by its own length; a block takes a part of a key head for
// all query heads and queries that read it, up to 16 rows of a tensor core's tile, so that it is read once.
// Each of its warps goes over 16 keys at a time by itself. A second kernel puts the parts together, in their
// order.
#include "src/cuda/attention.hpp"
#include "src/cuda/mma.cuh"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp, kRows = 16, kKeys = 16, kTile = kWarps * kKeys;
constexpr int kMostParts = 32;
constexpr float kLog2e = 1.4426950408889634f;

// Keys of a part, for a sequence of so many.
__host__ __device__ inline int part_size(int keys) {
  int size = keys <= 2048 ? 128 : 256;
  while (size * kMostParts < keys) size *= 2;
  return size;
}
__host__ __device__ inline int part_count(int keys) { return (keys + part_size(keys) - 1) / part_size(keys); }

struct Partial {
  float* out;    // [rows of q times heads, parts, value_dim]
  float* stats;  // [.., parts, 2]: the largest score and the sum, to the base 2
  int parts;
};

template <class T, int kKeyDim, int kValueDim>
struct Shapes {
  static constexpr int kKeyStride = kKeyDim + 8,
                       kValueStride = kValueDim + 8;  // no two rows on the same banks
  static constexpr int kStages = kKeyDim >= 192 ? 2 : 3;
  static constexpr int kStage = kKeys * (kKeyStride + kValueStride);  // elements of a warp
  static constexpr std::size_t kCopies = sizeof(T) * kWarps * kStages * kStage;
  static constexpr std::size_t kMerge = sizeof(float) * kWarps * kRows * (kValueDim + 2);
  static constexpr std::size_t kBytes = kCopies > kMerge ? kCopies : kMerge;
};

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

template <class T>
__device__ __forceinline__ unsigned load_pair(const AttentionCall& c, std::int64_t at) {
  if (c.q_type == DType::f32) {
    const float* q = static_cast<const float*>(c.q) + at;
    return pack<T>(q[0], q[1]);
  }
  return *reinterpret_cast<const unsigned*>(static_cast<const T*>(c.q) + at);
}

template <class T, int kKeyDim, int kValueDim>
__global__ void __launch_bounds__(kThreads) decode_part(const AttentionCall c, const Partial partial) {
  using S = Shapes<T, kKeyDim, kValueDim>;
  extern __shared__ __align__(16) unsigned char memory[];
  let_next_start();
  wait_for_previous();
  const AttentionSequence s = c.sequences[blockIdx.z];
  const int keys = s.end - s.start, size = part_size(keys), part = blockIdx.x;
  const int begin = s.start + part * size, end = min(s.end, begin + size);
  if (begin >= end || s.queries == 0) return;
  const int kv_head = blockIdx.y, group = c.heads / c.kv_heads, rows = group * s.queries;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, r0 = lane / 4, e0 = lane % 4 * 2;
  const int place = s.end - s.queries;
  T* const stages = reinterpret_cast<T*>(memory) + warp * S::kStages * S::kStage;

  auto fetch = [&](int tile) {
    const int from = begin + tile * kTile + warp * kKeys;
    if (from < end) {
      T* const k = stages + tile % S::kStages * S::kStage;
      T* const v = k + kKeys * S::kKeyStride;
      const int mine = from + lane % kKeys;
      const int row = mine < end ? static_cast<int>(s.row(mine)) : -1;
      constexpr int kKeyChunks = kKeyDim / 8, kValueChunks = kValueDim / 8;
#pragma unroll
      for (int i = 0; i < kKeys * kKeyChunks / kWarp; ++i) {
        const int chunk = i * kWarp + lane, j = chunk / kKeyChunks, d = chunk % kKeyChunks * 8;
        const int at = __shfl_sync(~0u, row, j);
        copy_async(k + j * S::kKeyStride + d,
                   static_cast<const T*>(s.k) + (at < 0 ? 0 : at) * s.k_row + kv_head * s.k_head + d,
                   at >= 0);
      }
#pragma unroll
      for (int i = 0; i < kKeys * kValueChunks / kWarp; ++i) {
        const int chunk = i * kWarp + lane, j = chunk / kValueChunks, d = chunk % kValueChunks * 8;
        const int at = __shfl_sync(~0u, row, j);
        copy_async(v + j * S::kValueStride + d,
                   static_cast<const T*>(s.v) + (at < 0 ? 0 : at) * s.v_row + kv_head * s.v_head + d,
                   at >= 0);
      }
    }
    commit_copies();
  };
  const int tiles = (end - begin + kTile - 1) / kTile;
#pragma unroll
  for (int i = 0; i < S::kStages - 1; ++i) fetch(i);

  // Row r of the tile is query r / group of query head kv_head group + r % group.
  unsigned q[kKeyDim / 16][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = r0 + 8 * half;
    const std::int64_t at = (s.first_query + r / group) * c.q_row + (kv_head * group + r % group) * c.q_head;
#pragma unroll
    for (int i = 0; i < kKeyDim / 16; ++i) {
      q[i][half] = r < rows ? load_pair<T>(c, at + 16 * i + e0) : 0;
      q[i][half + 2] = r < rows ? load_pair<T>(c, at + 16 * i + 8 + e0) : 0;
    }
  }
  const int position[2] = {place + r0 / group, place + (r0 + 8) / group};
  const bool masked = c.mask.left >= 0 || c.mask.right >= 0 || (c.mask.causal != 0 && s.queries > 1);

  float out[kValueDim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (int tile = 0; tile < tiles; ++tile) {
    fetch(tile + S::kStages - 1);
    wait_for_copies<S::kStages - 1>();
    __syncwarp();
    const int from = begin + tile * kTile + warp * kKeys;
    if (from < end) {
      const T* const k = stages + tile % S::kStages * S::kStage;
      const T* const v = k + kKeys * S::kKeyStride;
      float score[2][4] = {};
#pragma unroll
      for (int i = 0; i < kKeyDim / 16; ++i) {
        unsigned b[4];
        load_matrices(b, k + (lane % 8 + lane / 16 * 8) * S::kKeyStride + 16 * i + lane / 8 % 2 * 8);
        multiply<T>(score[0], q[i], b[0], b[1]);
        multiply<T>(score[1], q[i], b[2], b[3]);
      }
      float top[2] = {-INFINITY, -INFINITY};
      const bool partly = masked || from + kKeys > end;
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float x = score[n][e];
          x = c.soft_cap != 0 ? c.soft_cap * kLog2e * tanhf(x * c.scale / c.soft_cap)
                              : x * (c.scale * kLog2e);
          if (partly) {
            const int j = from + 8 * n + e0 + e % 2;
            if (j >= end || !c.mask.visible(position[e / 2], j)) x = -INFINITY;
          }
          score[n][e] = x, top[e / 2] = fmaxf(top[e / 2], x);
        }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 1));
        top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 2));
      }
      if (__any_sync(~0u, top[0] > largest[0] || top[1] > largest[1])) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float now = fmaxf(largest[half], top[half]);
          const float factor = largest[half] == -INFINITY ? 0.0f : exp2_fast(largest[half] - now);
          largest[half] = now, sum[half] *= factor;
#pragma unroll
          for (int n = 0; n < kValueDim / 8; ++n) out[n][2 * half] *= factor, out[n][2 * half + 1] *= factor;
        }
      }
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float p = score[n][e] == -INFINITY ? 0.0f : exp2_fast(score[n][e] - largest[e / 2]);
          score[n][e] = p, sum[e / 2] += p;
        }
      const unsigned weights[4] = {pack<T>(score[0][0], score[0][1]), pack<T>(score[0][2], score[0][3]),
                                   pack<T>(score[1][0], score[1][1]), pack<T>(score[1][2], score[1][3])};
#pragma unroll
      for (int n = 0; n < kValueDim / 16; ++n) {
        unsigned b[4];
        load_matrices_transposed(b, v + lane % 16 * S::kValueStride + 16 * n + lane / 16 * 8);
        multiply<T>(out[2 * n], weights, b[0], b[1]);
        multiply<T>(out[2 * n + 1], weights, b[2], b[3]);
      }
    }
    __syncwarp();
  }
  wait_for_copies<0>();
  __syncthreads();

  // The warps' shares, put together in their order.
  float* const shares = reinterpret_cast<float*>(memory);
  float* const stats = shares + kWarps * kRows * kValueDim;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
    sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
    const int r = r0 + 8 * half;
    if (lane % 4 == 0) {
      stats[(warp * kRows + r) * 2] = largest[half];
      stats[(warp * kRows + r) * 2 + 1] = sum[half];
    }
#pragma unroll
    for (int n = 0; n < kValueDim / 8; ++n) {
      float* const at = shares + (warp * kRows + r) * kValueDim + 8 * n + e0;
      at[0] = out[n][2 * half], at[1] = out[n][2 * half + 1];
    }
  }
  __syncthreads();
  for (int e = threadIdx.x; e < rows * kValueDim; e += kThreads) {
    const int r = e / kValueDim, d = e % kValueDim;
    float most = -INFINITY, total = 0, value = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, stats[(w * kRows + r) * 2]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float mine = stats[(w * kRows + r) * 2];
      const float factor = mine == -INFINITY ? 0.0f : exp2f(mine - most);
      total += factor * stats[(w * kRows + r) * 2 + 1];
      value += factor * shares[(w * kRows + r) * kValueDim + d];
    }
    const int t = s.first_query + r / group, h = kv_head * group + r % group;
    if (partial.parts > 1) {
      const std::int64_t at = (static_cast<std::int64_t>(t) * c.heads + h) * partial.parts + part;
      partial.out[at * kValueDim + d] = value;
      if (d == 0) partial.stats[2 * at] = most, partial.stats[2 * at + 1] = total;
    } else {
      value *= with_sink(c, h, most, total);
      store_out(c, t * c.out_row + h * c.out_head + d, total > 0 ? value / total : 0.0f);
      if (d == 0) store_lse(c, t, h, most, total);
    }
  }
}

// A block a query and head.
__global__ void __launch_bounds__(kThreads) merge_parts(const AttentionCall c, const Partial partial) {
  let_next_start();
  wait_for_previous();
  const AttentionSequence s = c.sequences[blockIdx.z];
  const int query = blockIdx.y, h = blockIdx.x;
  if (query >= s.queries) return;
  const int parts = part_count(s.end - s.start), t = s.first_query + query;
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
    float value = 0;
    for (int i = 0; i < parts; ++i)
      if (factors[i] != 0) value = fmaf(factors[i], partial.out[(first + i) * c.value_dim + d], value);
    store_out(c, t * c.out_row + h * c.out_head + d, value * whole[0]);
  }
}

template <class T, int kKeyDim, int kValueDim>
void run(const AttentionCall& c, CudaExec& exec) {
  constexpr const char* op = "softmax_attention";
  int parts = 1;
  for (int n = 0; n < c.count; ++n)
    parts = std::max(parts, part_count(c.host_sequences[n].end - c.host_sequences[n].start));
  if (parts > 1) parts = (parts + 3) / 4 * 4;  // so that scratch stays where it is while a sequence grows
  CudaScratch scratch(exec);
  Partial partial{nullptr, nullptr, parts};
  if (parts > 1) {
    partial.out = scratch.floats(Index{c.tokens} * c.heads, parts, kValueDim).data;
    partial.stats = scratch.floats(Index{c.tokens} * c.heads, parts, 2).data;
  }
  const unsigned count = static_cast<unsigned>(c.count);
  launch(exec, op, decode_part<T, kKeyDim, kValueDim>,
         {{static_cast<unsigned>(parts), static_cast<unsigned>(c.kv_heads), count},
          kThreads,
          Shapes<T, kKeyDim, kValueDim>::kBytes},
         c, partial);
  if (parts > 1)
    launch(exec, op, merge_parts,
           {{static_cast<unsigned>(c.heads), static_cast<unsigned>(c.most_queries), count}, kThreads}, c,
           partial);
}

bool has_dims(const AttentionCall& c, int key_dim, int value_dim) {
  return c.key_dim == key_dim && c.value_dim == value_dim;
}

template <class T>
void run(const AttentionCall& c, CudaExec& exec) {
  if (has_dims(c, 64, 64)) return run<T, 64, 64>(c, exec);
  if (has_dims(c, 80, 80)) return run<T, 80, 80>(c, exec);
  if (has_dims(c, 96, 96)) return run<T, 96, 96>(c, exec);
  if (has_dims(c, 128, 128)) return run<T, 128, 128>(c, exec);
  if (has_dims(c, 192, 128)) return run<T, 192, 128>(c, exec);
  run<T, 256, 256>(c, exec);
}

}  // namespace

bool attention_decode_takes(const AttentionCall& c) {
  const bool sixteen = c.kv_type == DType::bf16 || c.kv_type == DType::f16;
  const bool dims = has_dims(c, 64, 64) || has_dims(c, 80, 80) || has_dims(c, 96, 96) ||
                    has_dims(c, 128, 128) || has_dims(c, 192, 128) || has_dims(c, 256, 256);
  if (!sixteen || !dims || !c.mask.simple() || !c.plain_score() || c.kv_heads == 0) return false;
  if (c.most_queries * (c.heads / c.kv_heads) > kRows) return false;
  if (c.q_type != DType::f32 && (c.q_row % 2 != 0 || c.q_head % 2 != 0)) return false;
  auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  for (int n = 0; n < c.count; ++n) {
    const AttentionSequence& s = c.host_sequences[n];
    if (s.end == s.start && s.queries > 0) return false;
    if (!aligned(s.k) || !aligned(s.v) || (s.k_row | s.k_head | s.v_row | s.v_head) % 8 != 0) return false;
  }
  return true;
}

void attention_decode(const AttentionCall& c, CudaExec& exec) {
  c.kv_type == DType::bf16 ? run<bf16>(c, exec) : run<f16>(c, exec);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
