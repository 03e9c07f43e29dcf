// SPDX-License-Identifier: Apache-2.0
// Softmax attention with 16-bit inputs by tensor cores of compute capability 8.0 and later, with every option
// (FlashAttention-2; Dao, 2023): a block takes 64 queries of a head, a warp 16 of them, and goes over tiles
// of keys in shared memory, of which the next is on its way. What Hopper's kernel does not take runs here.
#include "src/cuda/attention.hpp"
#include "src/cuda/mma.cuh"
#include "src/cuda/resources.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp, kRows = 16, kQueries = kWarps * kRows;
constexpr float kLog2e = 1.4426950408889634f;

template <int kDim, int kKeys>
struct Layout {
  static constexpr int kStride = kDim + 8;  // no two rows on the same banks
  static constexpr int kQ = kQueries * kStride, kTile = kKeys * kStride;
  static constexpr std::size_t kBytes = 2 * (kQ + 4 * kTile);  // two stages of keys and values
};

// Rows of `dim` channels, zeros behind them and in rows that are not wanted, to shared memory.
template <int kDim, int kCount, class T, class Row>
__device__ __forceinline__ void fetch(T* to, const T* from, int dim, Row&& row) {
  constexpr int kChunks = kDim / 8, kStride = kDim + 8;
#pragma unroll 4
  for (int i = threadIdx.x; i < kCount * kChunks; i += kThreads) {
    const int r = i / kChunks, d = i % kChunks * 8;
    const std::int64_t at = row(r);  // of the row's first element; negative: none
    const bool wanted = at >= 0 && d < dim;
    copy_async(to + r * kStride + d, from + (wanted ? at + d : 0), wanted);
  }
}

// A score to the base 2, or -inf. Not inlined: what most tiles do without needs no registers there.
__device__ __noinline__ float score(const AttentionCall& c, float product, int n, int h, int query, int i,
                                    int j) {
  if (!c.mask.visible(i, j)) return -INFINITY;
  float s = c.scale * product;
  if (c.soft_cap != 0) s = c.soft_cap * tanhf(s / c.soft_cap);
  if (c.alibi != nullptr) s -= c.alibi[h] * static_cast<float>(abs(i - j));
  if (c.relative != nullptr)
    s += c.relative[h * c.relative_head + c.reach + max(-c.reach, min(c.reach, j - i))];
  if (c.bias != nullptr)
    s += c.bias[n * c.bias_sequence + h * c.bias_head + query * c.bias_query + j * c.bias_key];
  return s * kLog2e;
}

template <class T>
__device__ __forceinline__ void store_pair(const AttentionCall& c, std::int64_t at, int d, float x, float y) {
  if (c.out_type == DType::f32) {
    float* const out = static_cast<float*>(c.out) + at + d;
    if (d < c.value_dim) out[0] = x;
    if (d + 1 < c.value_dim) out[1] = y;
    return;
  }
  const unsigned both = pack<T>(x, y);
  auto* const out = static_cast<std::uint16_t*>(c.out) + at + d;
  if (d < c.value_dim) out[0] = static_cast<std::uint16_t>(both & 0xffff);
  if (d + 1 < c.value_dim) out[1] = static_cast<std::uint16_t>(both >> 16);
}

template <class T, int kDim, int kKeys>
__global__ void __launch_bounds__(kThreads) tiled(const __grid_constant__ AttentionCall c) {
  using L = Layout<kDim, kKeys>;
  extern __shared__ __align__(16) unsigned char memory[];
  T* const q_tile = reinterpret_cast<T*>(memory);
  T* const stages = q_tile + L::kQ;
  let_next_start();
  wait_for_previous();
  const AttentionSequence s = c.sequences[blockIdx.z];
  const int h = blockIdx.y, first = blockIdx.x * kQueries;
  if (first >= s.queries) return;
  const int kv_head = h / (c.heads / c.kv_heads), place = s.end - s.queries,
            rows = min(kQueries, s.queries - first);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, r0 = lane / 4, e0 = lane % 4 * 2;
  const int low = max(s.start, c.mask.first_key(place + first)),
            high = c.mask.last_key(place + first + rows - 1, s.end);
  const int tiles = high > low ? (high - low + kKeys - 1) / kKeys : 0;

  auto fetch_keys = [&](int tile) {
    if (tile < tiles) {
      T* const k = stages + tile % 2 * 2 * L::kTile;
      const int from = low + tile * kKeys;
      fetch<kDim, kKeys>(k, static_cast<const T*>(s.k), c.key_dim, [&](int r) {
        return from + r < high ? s.row(from + r) * s.k_row + kv_head * s.k_head : -1;
      });
      fetch<kDim, kKeys>(k + L::kTile, static_cast<const T*>(s.v), c.value_dim, [&](int r) {
        return from + r < high ? s.row(from + r) * s.v_row + kv_head * s.v_head : -1;
      });
    }
    commit_copies();
  };
  fetch<kDim, kQueries>(q_tile, static_cast<const T*>(c.q), c.key_dim, [&](int r) {
    return r < rows ? (s.first_query + first + r) * c.q_row + h * c.q_head : -1;
  });
  fetch_keys(0);
  wait_for_copies<0>();
  __syncthreads();
  constexpr bool kHeld = kDim <= 128;  // queries in registers, or read again for each tile
  unsigned q[kHeld ? kDim / 16 : 1][4];
  auto load_queries = [&](unsigned(&to)[4], int i) {
    load_matrices(to, q_tile + (warp * kRows + lane % 16) * L::kStride + 16 * i + lane / 16 * 8);
  };
  if constexpr (kHeld)
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) load_queries(q[i], i);

  const int query[2] = {first + warp * kRows + r0, first + warp * kRows + r0 + 8};
  const int lowest = place + first + warp * kRows,
            highest = lowest + kRows - 1;  // positions of the warp's queries
  const bool special = !c.plain_score() || c.soft_cap != 0 || !c.mask.simple();
  float out[kDim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (int tile = 0; tile < tiles; ++tile) {
    fetch_keys(tile + 1);
    wait_for_copies<1>();
    __syncthreads();
    const T* const k = stages + tile % 2 * 2 * L::kTile;
    const T* const v = k + L::kTile;
    const int from = low + tile * kKeys;
    float p[kKeys / 8][4] = {};
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      if constexpr (!kHeld) load_queries(q[0], i);
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        unsigned b[4];
        load_matrices(b, k + (16 * n + lane % 8 + lane / 16 * 8) * L::kStride + 16 * i + lane / 8 % 2 * 8);
        multiply<T>(p[2 * n], q[kHeld ? i : 0], b[0], b[1]);
        multiply<T>(p[2 * n + 1], q[kHeld ? i : 0], b[2], b[3]);
      }
    }
    const bool all = !special && from + kKeys <= high && (c.mask.causal == 0 || from + kKeys - 1 <= lowest) &&
                     (c.mask.left < 0 || from >= highest - c.mask.left) &&
                     (c.mask.right < 0 || from + kKeys - 1 <= lowest + c.mask.right);
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int j = from + 8 * n + e0 + e % 2, row = e / 2;
        float x = p[n][e] * (c.scale * kLog2e);
        if (special)
          x = j < high && query[row] < s.queries
                  ? score(c, p[n][e], blockIdx.z, h, query[row], place + query[row], j)
                  : -INFINITY;
        else if (!all && (j >= high || !c.mask.visible_simple(place + query[row], j)))
          x = -INFINITY;
        p[n][e] = x, top[row] = fmaxf(top[row], x);
      }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      top[row] = fmaxf(top[row], __shfl_xor_sync(~0u, top[row], 1));
      top[row] = fmaxf(top[row], __shfl_xor_sync(~0u, top[row], 2));
      const float now = fmaxf(largest[row], top[row]);
      const float factor = largest[row] == -INFINITY ? 0.0f : exp2_fast(largest[row] - now);
      largest[row] = now, sum[row] *= factor;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) out[n][2 * row] *= factor, out[n][2 * row + 1] *= factor;
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float x = p[n][e] == -INFINITY ? 0.0f : exp2_fast(p[n][e] - largest[e / 2]);
        p[n][e] = x, sum[e / 2] += x;
      }
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      const unsigned weights[4] = {pack<T>(p[2 * i][0], p[2 * i][1]), pack<T>(p[2 * i][2], p[2 * i][3]),
                                   pack<T>(p[2 * i + 1][0], p[2 * i + 1][1]),
                                   pack<T>(p[2 * i + 1][2], p[2 * i + 1][3])};
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        unsigned b[4];
        load_matrices_transposed(b, v + (16 * i + lane % 16) * L::kStride + 16 * n + lane / 16 * 8);
        multiply<T>(out[2 * n], weights, b[0], b[1]);
        multiply<T>(out[2 * n + 1], weights, b[2], b[3]);
      }
    }
    __syncthreads();  // before its place is written again
  }
  wait_for_copies<0>();
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    sum[row] += __shfl_xor_sync(~0u, sum[row], 1);
    sum[row] += __shfl_xor_sync(~0u, sum[row], 2);
    if (query[row] >= s.queries) continue;
    float factor = 1;
    if (c.sinks != nullptr || c.plus_one) {
      const float sink = c.sinks != nullptr ? c.sinks[h] * kLog2e : 0.0f, now = fmaxf(largest[row], sink);
      factor = largest[row] == -INFINITY ? 0.0f : exp2f(largest[row] - now);
      sum[row] = sum[row] * factor + exp2f(sink - now);
      if (c.sinks != nullptr && c.plus_one) sum[row] += exp2f(-now);
      largest[row] = now;
    }
    const int t = s.first_query + query[row];
    if (c.lse != nullptr && lane % 4 == 0)
      c.lse[t * c.lse_row + h * c.lse_head] =
          sum[row] > 0 ? (largest[row] + log2f(sum[row])) / kLog2e : -INFINITY;
    factor = sum[row] > 0 ? factor / sum[row] : 0.0f;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
      store_pair<T>(c, t * c.out_row + h * c.out_head, 8 * n + e0, factor * out[n][2 * row],
                    factor * out[n][2 * row + 1]);
  }
}

template <class T, int kDim, int kKeys>
void run(const AttentionCall& c, CudaExec& exec) {
  launch(exec, "softmax_attention", tiled<T, kDim, kKeys>,
         {{blocks(c.most_queries, kQueries), static_cast<unsigned>(c.heads), static_cast<unsigned>(c.count)},
          kThreads,
          Layout<kDim, kKeys>::kBytes},
         c);
}

template <class T>
void run(const AttentionCall& c, CudaExec& exec) {
  const int dim = std::max(c.key_dim, c.value_dim);
  if (dim <= 64) return run<T, 64, 64>(c, exec);
  if (dim <= 128) return run<T, 128, 64>(c, exec);
  run<T, 256, 32>(c, exec);
}

}  // namespace

bool attention_tiled_takes(const AttentionCall& c) {
  constexpr int kMostDim = 256;
  const bool sixteen = c.kv_type != DType::f32 && c.q_type == c.kv_type;
  if (!sixteen || c.key_dim > kMostDim || c.value_dim > kMostDim || c.key_dim % 8 != 0 ||
      c.value_dim % 8 != 0)
    return false;
  auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  if (!aligned(c.q) || c.q_row % 8 != 0 || c.q_head % 8 != 0) return false;
  for (int n = 0; n < c.count; ++n) {
    const AttentionSequence& s = c.host_sequences[n];
    if (!aligned(s.k) || !aligned(s.v) || (s.k_row | s.k_head | s.v_row | s.v_head) % 8 != 0) return false;
  }
  return true;
}

void attention_tiled(const AttentionCall& c, CudaExec& exec) {
  c.kv_type == DType::bf16 ? run<bf16>(c, exec) : run<f16>(c, exec);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
