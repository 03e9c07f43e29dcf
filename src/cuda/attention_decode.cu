// SPDX-License-Identifier: Apache-2.0
// Few queries with many keys (flash-decoding; Dao et al., 2023): bound by the memory that keys and values are
// read from. A sequence's keys are cut into parts by its own length; a block takes a part of a key head for
// all query heads and queries that read it, up to 16 rows, so that it is read once. Each of its warps goes
// over 16 keys at a time by itself, with keys and values as the first operands of the tensor cores, straight
// from device memory:
//   S^T [16 keys, rows] = K Q^T,  O^T [dim, rows] += V^T P^T
// A second kernel puts the parts together, in their order.
#include "src/cuda/attention_decode.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kMostRows = 16, kMostParts = 32;

// Keys of a part, for a sequence of so many.
__host__ __device__ inline int part_size(int keys) {
  int size = keys <= 2048 ? 128 : 512;
  while (size * kMostParts < keys) size *= 2;
  return size;
}
__host__ __device__ inline int part_count(int keys) { return (keys + part_size(keys) - 1) / part_size(keys); }

struct Partial {
  float* out;    // [rows of q times heads, parts, value_dim]
  float* stats;  // [.., parts, 2]: the largest score and the sum, to the base 2
  int parts;
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

// What the warps have of a part, put together in their order and written.
template <int kRows, int kValueDim>
__device__ __forceinline__ void write_part(const AttentionCall& c, const Partial& partial,
                                           const AttentionSequence& s, const float* shares,
                                           const float* stats) {
  const int kv_head = blockIdx.y, group = c.heads / c.kv_heads;
  for (int i = threadIdx.x; i < group * s.queries * kValueDim; i += kThreads) {
    const int r = i / kValueDim, d = i % kValueDim;
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
    const int query = s.first_query + r / group, h = kv_head * group + r % group;
    if (partial.parts > 1) {
      const std::int64_t to =
          (static_cast<std::int64_t>(query) * c.heads + h) * partial.parts + static_cast<int>(blockIdx.x);
      partial.out[to * kValueDim + d] = value;
      if (d == 0) partial.stats[2 * to] = most, partial.stats[2 * to + 1] = total;
    } else {  // as merge_parts() does with one part
      const float factor = with_sink(c, h, most, total);
      store_out(c, query * c.out_row + h * c.out_head + d, value * (total > 0 ? factor / total : 0.0f));
      if (d == 0) store_lse(c, query, h, most, total);
    }
  }
}

// kTiles: of 8 rows, which are query r / group of query head kv_head group + r % group.
template <class T, int kKeyDim, int kValueDim, int kTiles>
__global__ void __launch_bounds__(kThreads, kKeyDim <= 128 && kTiles == 1 ? 3 : 2)
    decode_part(const __grid_constant__ AttentionCall c, const Partial partial) {
  constexpr int kKeyBlocks = KeyRows<kKeyDim>::kBlocks;
  extern __shared__ __align__(16) float memory[];
  let_next_start();
  wait_for_previous();
  const AttentionSequence s = c.sequences[blockIdx.z];
  const int size = part_size(s.end - s.start);
  int begin = s.start + static_cast<int>(blockIdx.x) * size;
  const int end = min(s.end, begin + size), place = s.end - s.queries;
  if (begin >= end || s.queries == 0) return;
  if (const int hidden = place - c.mask.left - begin; c.mask.left >= 0 && hidden > 0)
    begin += min(hidden, end - begin) / kTile * kTile;  // tiles that no query sees
  const int kv_head = blockIdx.y, group = c.heads / c.kv_heads;
  const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  const T* const keys = static_cast<const T*>(s.k) + kv_head * s.k_head;
  const T* const values = static_cast<const T*>(s.v) + kv_head * s.v_head;

  auto row_of = [&](int j) { return j < end ? s.row(j) : -1; };
  std::int64_t row[2];  // of the keys g and g + 8 of a tile
  auto find_rows = [&](int from) { row[0] = row_of(from + g), row[1] = row_of(from + g + 8); };
  auto at = [](const T* base, std::int64_t r, std::int64_t stride) {
    return r >= 0 ? base + r * stride : nullptr;
  };
  int from = begin + warp * kKeys;
  KeyRows<kKeyDim> k;
  find_rows(from);
  k.load(at(keys, row[0], s.k_row), at(keys, row[1], s.k_row));

  unsigned q[kTiles][kKeyBlocks][4];
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const int r = n * kRowsATile + g;
    const std::int64_t first =
        (s.first_query + r / group) * c.q_row + (kv_head * group + r % group) * c.q_head;
#pragma unroll
    for (int i = 0; i < kKeyBlocks; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int d = 32 * i + 8 * t + 2 * e;
        q[n][i][e] = r < group * s.queries && d < kKeyDim ? load_pair<T>(c, first + d) : 0;
      }
  }
  QueryRows<T, kTiles, kValueDim> rows(place, group);
  const bool masked = c.mask.left >= 0 || c.mask.right >= 0 || (c.mask.causal != 0 && s.queries > 1);

  for (; from < end; from += kTile) {
    KeyRows<kValueDim> v;
    v.load(at(values, row[0], s.v_row), at(values, row[1], s.v_row));
    float score[kTiles][4] = {};
#pragma unroll
    for (int i = 0; i < kKeyBlocks; ++i) {
      const unsigned first[4] = {k.low[i].x, k.high[i].x, k.low[i].y, k.high[i].y};
      const unsigned second[4] = {k.low[i].z, k.high[i].z, k.low[i].w, k.high[i].w};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        multiply<T>(score[n], first, q[n][i][0], q[n][i][1]);
        multiply<T>(score[n], second, q[n][i][2], q[n][i][3]);
      }
    }
    if (from + kTile < end) {  // the next keys, on their way meanwhile
      find_rows(from + kTile);
      k.load(at(keys, row[0], s.k_row), at(keys, row[1], s.k_row));
    }
    unsigned weights[kTiles][2];
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
      rows.weigh(c, n, score[n], from + g, end, masked || from + kKeys > end, weights[n]);
    rows.add(v, weights);
  }

  constexpr int kRows = kTiles * kRowsATile;
  float* const stats = memory + kWarps * kRows * kValueDim;
  rows.share(memory + warp * kRows * kValueDim, stats + warp * kRows * 2);
  __syncthreads();
  write_part<kRows, kValueDim>(c, partial, s, memory, stats);
}

// A block a query and head.
__global__ void __launch_bounds__(kThreads)
    merge_parts(const __grid_constant__ AttentionCall c, const Partial partial) {
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
  const int tiles = c.most_queries * (c.heads / c.kv_heads) <= kRowsATile ? 1 : 2;
  const std::size_t bytes =
      sizeof(float) * static_cast<std::size_t>(kWarps * tiles * kRowsATile * (kValueDim + 2));
  launch(exec, op, tiles == 1 ? decode_part<T, kKeyDim, kValueDim, 1> : decode_part<T, kKeyDim, kValueDim, 2>,
         {{static_cast<unsigned>(parts), static_cast<unsigned>(c.kv_heads), count}, kThreads, bytes}, c,
         partial);
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
  if (c.most_queries * (c.heads / c.kv_heads) > kMostRows) return false;
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
