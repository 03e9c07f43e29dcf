// SPDX-License-Identifier: Apache-2.0
// Softmax attention in f32, of any types, dimensions and options: an online softmax over tiles of keys in
// shared memory (Milakov and Gimelshein, 2018; Dao et al., 2022).
#include "ashlar/cuda/ops.hpp"
#include "src/cuda/attention.hpp"
#include "src/cuda/resources.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 128, kQueries = 16, kKeys = 32;
constexpr int kPerRow = kThreads / kQueries;  // threads a query

struct Tile {
  __host__ __device__ explicit Tile(const AttentionCall& c)
      : key_dim(c.key_dim), value_dim(c.value_dim), key_stride(c.key_dim | 1) {}
  __host__ __device__ int floats() const {
    return kQueries * key_dim + kKeys * key_stride + (kKeys + kQueries) * value_dim + kQueries * kKeys +
           2 * kQueries;
  }
  int key_dim, value_dim, key_stride;
};

template <class T>
__device__ __forceinline__ float element(const void* p, std::int64_t i) {
  return load<1>(static_cast<const T*>(p) + i).x[0];
}

template <class T>
__device__ __forceinline__ void store_one(void* p, std::int64_t i, float x) {
  if constexpr (std::is_same_v<T, f16>)
    static_cast<__half*>(p)[i] = __float2half_rn(x);
  else
    store<1>(static_cast<T*>(p) + i, Floats<1>{{x}});
}

// The score of a visible key, or -inf.
__device__ __forceinline__ float score(const AttentionCall& c, float product, int n, int h, int query, int i,
                                       int j) {
  if (!c.mask.visible(i, j)) return -INFINITY;
  float s = c.scale * product;
  if (c.soft_cap != 0) s = c.soft_cap * tanhf(s / c.soft_cap);
  if (c.alibi != nullptr) s -= c.alibi[h] * static_cast<float>(abs(i - j));
  if (c.relative != nullptr)
    s += c.relative[h * c.relative_head + c.reach + max(-c.reach, min(c.reach, j - i))];
  if (c.bias != nullptr) {
    const float b = c.bias[n * c.bias_sequence + h * c.bias_head + query * c.bias_query + j * c.bias_key];
    s = b == -INFINITY ? b : s + b;
  }
  return s;
}

// A block a sequence, head and kQueries queries; kPerRow threads a query share its keys, then its output.
template <class Q, class Kv, class Out>
__global__ void __launch_bounds__(kThreads) exact_tile(const __grid_constant__ AttentionCall c) {
  extern __shared__ float memory[];
  const Tile tile(c);
  float* const q = memory;
  float* const k = q + kQueries * tile.key_dim;
  float* const v = k + kKeys * tile.key_stride;
  float* const o = v + kKeys * tile.value_dim;
  float* const p = o + kQueries * tile.value_dim;
  float* const factors = p + kQueries * kKeys;  // and sums behind them
  let_next_start();
  wait_for_previous();
  const AttentionSequence s = c.sequences[blockIdx.z];
  const int h = blockIdx.y, first = blockIdx.x * kQueries;
  if (first >= s.queries) return;
  const int rows = min(kQueries, s.queries - first), row = threadIdx.x / kPerRow,
            share = threadIdx.x % kPerRow;
  const int place = s.end - s.queries;  // of query 0
  for (int e = threadIdx.x; e < kQueries * tile.key_dim; e += kThreads) {
    const int r = e / tile.key_dim;
    q[e] = r < rows ? element<Q>(c.q, (s.first_query + first + r) * c.q_row + h * c.q_head + e % tile.key_dim)
                    : 0.0f;
  }
  for (int e = threadIdx.x; e < kQueries * tile.value_dim; e += kThreads) o[e] = 0;
  const int kv_head = h / (c.heads / c.kv_heads), i = place + first + row;
  float largest = -INFINITY, sum = 0;  // of the row, the same in its threads
  const int low = max(s.start, c.mask.first_key(place + first)),
            high = c.mask.last_key(place + first + rows - 1, s.end);
  for (int from = low; from < high; from += kKeys) {
    const int keys = min(kKeys, high - from);
    __syncthreads();
    for (int e = threadIdx.x; e < keys * tile.key_dim; e += kThreads) {
      const int j = e / tile.key_dim, d = e % tile.key_dim;
      k[j * tile.key_stride + d] = element<Kv>(s.k, s.row(from + j) * s.k_row + kv_head * s.k_head + d);
    }
    for (int e = threadIdx.x; e < keys * tile.value_dim; e += kThreads) {
      const int j = e / tile.value_dim, d = e % tile.value_dim;
      v[e] = element<Kv>(s.v, s.row(from + j) * s.v_row + kv_head * s.v_head + d);
    }
    __syncthreads();
    float mine[kKeys / kPerRow], top = -INFINITY;
#pragma unroll
    for (int e = 0; e < kKeys / kPerRow; ++e) {
      const int j = share + e * kPerRow;
      float product = 0;
      if (j < keys && row < rows)
        for (int d = 0; d < tile.key_dim; ++d)
          product = fmaf(q[row * tile.key_dim + d], k[j * tile.key_stride + d], product);
      mine[e] =
          j < keys && row < rows ? score(c, product, blockIdx.z, h, first + row, i, from + j) : -INFINITY;
      top = fmaxf(top, mine[e]);
    }
    for (int d = kPerRow / 2; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    const float before = largest;
    largest = fmaxf(largest, top);
    const float factor = before == largest ? 1.0f : expf(before - largest);
    float part = 0;
#pragma unroll
    for (int e = 0; e < kKeys / kPerRow; ++e) {
      const float x = mine[e] == -INFINITY ? 0.0f : expf(mine[e] - largest);
      p[row * kKeys + share + e * kPerRow] = x, part += x;
    }
    for (int d = kPerRow / 2; d > 0; d /= 2) part += __shfl_xor_sync(~0u, part, d);
    sum = sum * factor + part;
    if (share == 0) factors[row] = factor;
    __syncthreads();
    for (int e = threadIdx.x; e < kQueries * tile.value_dim; e += kThreads) {
      const int r = e / tile.value_dim, d = e % tile.value_dim;
      float total = o[e] * factors[r];
      for (int j = 0; j < keys; ++j) {
        const float weight = p[r * kKeys + j];  // a hidden value may be anything
        if (weight != 0) total = fmaf(weight, v[j * tile.value_dim + d], total);
      }
      o[e] = total;
    }
  }
  __syncthreads();  // the last factors were read
  if (c.sinks != nullptr || c.plus_one) {
    const float sink = c.sinks != nullptr ? c.sinks[h] : 0.0f, before = largest;
    largest = fmaxf(largest, sink);
    const float factor = before == -INFINITY ? 0.0f : expf(before - largest);
    sum = sum * factor + expf(sink - largest);
    if (c.sinks != nullptr && c.plus_one) sum += expf(-largest);
    if (share == 0) factors[row] = factor;
  } else if (share == 0) {
    factors[row] = 1;
  }
  if (share == 0) {
    factors[kQueries + row] = sum;
    if (c.lse != nullptr && row < rows)
      c.lse[(s.first_query + first + row) * c.lse_row + h * c.lse_head] =
          sum > 0 ? largest + logf(sum) : -INFINITY;
  }
  __syncthreads();
  for (int e = threadIdx.x; e < rows * tile.value_dim; e += kThreads) {
    const int r = e / tile.value_dim;
    const float total = factors[kQueries + r];
    store_one<Out>(c.out, (s.first_query + first + r) * c.out_row + h * c.out_head + e % tile.value_dim,
                   total > 0 ? o[e] * factors[r] / total : 0.0f);
  }
}

constexpr int kThreadsOfRows = 256;

__global__ void __launch_bounds__(kThreadsOfRows)
    round_elements(const float* from, std::int64_t row, std::int64_t head, Index rows, int heads, int dim,
                   bf16* to) {
  let_next_start();
  wait_for_previous();
  const int groups = dim / 4;
  const Index all = rows * heads * groups;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreadsOfRows + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreadsOfRows) {
    const Index t = i / groups / heads;
    const int h = static_cast<int>(i / groups % heads), d = static_cast<int>(i % groups) * 4;
    store<4>(to + (t * heads + h) * dim + d, load<4>(from + t * row + h * head + d));
  }
}

__global__ void __launch_bounds__(kThreadsOfRows)
    round_one_by_one(const float* from, std::int64_t row, std::int64_t head, Index rows, int heads, int dim,
                     bf16* to) {
  let_next_start();
  wait_for_previous();
  const Index all = rows * heads * dim;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreadsOfRows + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreadsOfRows)
    store<1>(to + i, load<1>(from + i / dim / heads * row + i / dim % heads * head + i % dim));
}

__global__ void __launch_bounds__(kThreadsOfRows) merge_rows(const MergeAttention a) {
  let_next_start();
  wait_for_previous();
  const Index row = blockIdx.x, t = row / a.a.shape[1], h = row % a.a.shape[1];
  const float x = a.lse_a.data[t * a.lse_a.strides[0] + h * a.lse_a.strides[1]],
              y = a.lse_b.data[t * a.lse_b.strides[0] + h * a.lse_b.strides[1]];
  const float top = fmaxf(x, y);
  const float wx = x == -INFINITY ? 0.0f : expf(x - top), wy = y == -INFINITY ? 0.0f : expf(y - top),
              sum = wx + wy;
  for (Index d = threadIdx.x; d < a.a.shape[2]; d += kThreadsOfRows) {
    const float p = wx == 0 ? 0.0f : wx / sum * a.a.data[t * a.a.strides[0] + h * a.a.strides[1] + d];
    const float q = wy == 0 ? 0.0f : wy / sum * a.b.data[t * a.b.strides[0] + h * a.b.strides[1] + d];
    a.out.data[t * a.out.strides[0] + h * a.out.strides[1] + d] = p + q;
  }
  __syncthreads();  // lse may be one of the two
  if (threadIdx.x == 0 && a.lse.data != nullptr)
    a.lse.data[t * a.lse.strides[0] + h * a.lse.strides[1]] = top == -INFINITY ? top : top + logf(sum);
}

template <class Q, class Kv, class Out>
void run(const AttentionCall& c, CudaExec& exec) {
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(Tile(c).floats());
  launch(exec, "softmax_attention", exact_tile<Q, Kv, Out>,
         {{blocks(c.most_queries, kQueries), static_cast<unsigned>(c.heads), static_cast<unsigned>(c.count)},
          kThreads,
          bytes},
         c);
}

}  // namespace

void attention_exact(const AttentionCall& c, CudaExec& exec) {
  if (sizeof(float) * static_cast<std::size_t>(Tile(c).floats()) > exec.resources().most_shared)
    refuse("softmax_attention", "heads have ", c.key_dim, " and ", c.value_dim,
           " channels, more than a multiprocessor's memory takes");
  if (c.q_type == DType::f32 && c.kv_type == DType::f32) return run<float, float, float>(c, exec);
  if (c.q_type == DType::f32) return run<float, bf16, float>(c, exec);
  if (c.q_type == DType::f16) return run<f16, f16, f16>(c, exec);
  if (c.out_type == DType::f32) return run<bf16, bf16, float>(c, exec);
  run<bf16, bf16, bf16>(c, exec);
}

void round_rows(const float* from, std::int64_t row, std::int64_t head, Index rows, int heads, int dim,
                bf16* to, CudaExec& exec) {
  const Index all = rows * heads * dim;
  if (all == 0) return;
  const bool fours =
      dim % 4 == 0 && row % 4 == 0 && head % 4 == 0 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0;
  const LaunchShape shape{std::min(static_cast<unsigned>(exec.multiprocessors()) * 8,
                                   blocks(all / (fours ? 4 : 1), kThreadsOfRows)),
                          kThreadsOfRows};
  launch(exec, "softmax_attention", fours ? round_elements : round_one_by_one, shape, from, row, head, rows,
         heads, dim, to);
}

}  // namespace cuda

void merge_attention(const MergeAttention& a, CudaExec& exec) {
  constexpr std::string_view op = "merge_attention";
  const auto [tokens, heads, dim] = a.a.shape;
  expect_shape(op, "a", a.a, a.a.shape);
  expect_shape(op, "b", a.b, a.a.shape);
  expect_shape(op, "out", a.out, a.a.shape);
  expect_shape(op, "lse_a", a.lse_a, {tokens, heads});
  expect_shape(op, "lse_b", a.lse_b, {tokens, heads});
  if (a.lse) expect_shape(op, "lse", a.lse, {tokens, heads});
  cuda::trace(exec, op, "rows", to_string(a.a.shape));
  if (tokens * heads == 0) return;
  launch(exec, "merge_attention", cuda::merge_rows,
         {static_cast<unsigned>(tokens * heads), cuda::kThreadsOfRows}, a);
}

}  // namespace v0
}  // namespace ashlar
