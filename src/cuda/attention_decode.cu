// SPDX-License-Identifier: Apache-2.0
// Few queries with many keys (flash-decoding; Dao et al., 2023): bound by the memory that keys and values are
// read from. A sequence's visible keys are cut into parts by their own number; a part of a key head is an
// item of work for all query heads and queries that read it, up to 16 rows of a tensor core's tile, so that
// it is read once. As many blocks as fit go over equal shares of all items without draining their copies in
// between: which block has an item changes nothing of its result. Each warp goes over 16 keys at a time by
// itself. A second kernel puts the parts together, in their order.
#include "src/cuda/attention.hpp"
#include "src/cuda/mma.cuh"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp, kRows = 16, kKeys = 16, kTile = kWarps * kKeys;
constexpr int kMostParts = 128, kFewItems = 64;
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

struct Work {
  Parts parts;
  int items;                           // of all sequences: by sequence, key head, part
  ArgumentList<int, kFewItems> first;  // item of a sequence
};

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
  static constexpr std::size_t kBytes = sizeof(T) * kWarps * kStages * kStage;
  static constexpr int kShareStride = kValueDim + 8;  // floats of a row of a warp's share, kept in a stage
  static_assert(sizeof(float) * kRows * kShareStride <= sizeof(T) * kStage);
  static constexpr int kFit = static_cast<int>((std::size_t{220} << 10) / (kBytes + 2048));
  static constexpr int kBlocks = kFit < 1 ? 1 : kFit > 4 ? 4 : kFit;  // of a multiprocessor
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

// Where an item of work is.
struct Item {
  int sequence, head, part, begin, end;
};
__device__ __forceinline__ Item item_at(const AttentionCall& c, const Work& work, int item) {
  int n = 0;
  for (int step = 1 << (31 - __clz(c.count)); step > 0; step /= 2)
    if (n + step < c.count && work.first[n + step] <= item) n += step;
  const AttentionSequence& s = c.sequences[n];
  const int first = first_key(c, s), size = work.parts.size(s.end - first),
            count = work.parts.count(s.end - first);
  const int at = item - work.first[n], part = at % count, begin = first + part * size;
  return {n, at / count, part, begin, min(s.end, begin + size)};
}

// The keys and values of a warp's next 16 keys, item after item.
template <class T, int kKeyDim, int kValueDim>
struct Copies {
  using S = Shapes<T, kKeyDim, kValueDim>;
  AttentionSequence s;
  const T *k, *v;
  T* stages;
  int item, last, from, end, stage = 0, row = -1;

  __device__ __forceinline__ void open(const AttentionCall& c, const Work& work) {
    if (item >= last) return;
    const Item i = item_at(c, work, item);
    s = c.sequences[i.sequence], from = i.begin, end = i.end;
    k = static_cast<const T*>(s.k) + i.head * s.k_head, v = static_cast<const T*>(s.v) + i.head * s.v_head;
    find_row();
  }
  // A copy before it is needed: a page's number comes from memory.
  __device__ __forceinline__ void find_row() {
    const int mine = from + threadIdx.x / kWarp * kKeys + threadIdx.x % kKeys;
    row = mine < end ? static_cast<int>(s.row(mine)) : -1;
  }
  template <int kDim, int kStride>
  __device__ __forceinline__ void copy(T* to, const T* rows, std::int64_t stride) const {
    constexpr int kChunks = kDim / 8;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < kKeys * kChunks / kWarp; ++i) {
      const int chunk = i * kWarp + lane, j = chunk / kChunks, d = chunk % kChunks * 8;
      const int at = __shfl_sync(~0u, row, j);
      copy_async(to + j * kStride + d, rows + (at < 0 ? 0 : at) * stride + d, at >= 0);
    }
  }
  __device__ __forceinline__ void next(const AttentionCall& c, const Work& work) {
    if (item < last) {
      if (from + static_cast<int>(threadIdx.x) / kWarp * kKeys < end) {
        T* const to = stages + stage * S::kStage;
        copy<kKeyDim, S::kKeyStride>(to, k, s.k_row);
        copy<kValueDim, S::kValueStride>(to + kKeys * S::kKeyStride, v, s.v_row);
      }
      from += kTile;
      if (from < end)
        find_row();
      else
        ++item, open(c, work);
    }
    stage = stage + 1 == S::kStages ? 0 : stage + 1;
    commit_copies();
  }
};

template <class T, int kKeyDim, int kValueDim>
__global__ void __launch_bounds__(kThreads)
    decode_part(const __grid_constant__ AttentionCall c, const __grid_constant__ Work work,
                const Partial partial) {
  using S = Shapes<T, kKeyDim, kValueDim>;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ float stats[kWarps][kRows][2];
  let_next_start();
  const int blocks = gridDim.x, block = blockIdx.x, extra = work.items % blocks;
  const int first = work.items / blocks * block + min(block, extra);
  const int last = first + work.items / blocks + (block < extra ? 1 : 0);
  wait_for_previous();
  if (first >= last) return;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, r0 = lane / 4, e0 = lane % 4 * 2;
  const int group = c.heads / c.kv_heads;
  T* const all_stages = reinterpret_cast<T*>(memory);
  T* const stages = all_stages + warp * S::kStages * S::kStage;
  Copies<T, kKeyDim, kValueDim> copies;
  copies.stages = stages, copies.item = first, copies.last = last;
  copies.open(c, work);
#pragma unroll
  for (int i = 0; i < S::kStages - 1; ++i) copies.next(c, work);

  unsigned q[kKeyDim / 16][4];
  int q_sequence = -1, q_head = -1, stage = 0;
  for (int item = first; item < last; ++item) {
    const Item here = item_at(c, work, item);
    const AttentionSequence& s = c.sequences[here.sequence];
    const int kv_head = here.head, part = here.part, begin = here.begin, end = here.end;
    const int rows = group * s.queries, first_query = s.first_query;
    // Row r of the tile is query r / group of query head kv_head group + r % group.
    if (here.sequence != q_sequence || kv_head != q_head) {
      q_sequence = here.sequence, q_head = kv_head;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = r0 + 8 * half;
        const std::int64_t at =
            (first_query + r / group) * c.q_row + (kv_head * group + r % group) * c.q_head;
#pragma unroll
        for (int i = 0; i < kKeyDim / 16; ++i) {
          q[i][half] = r < rows ? load_pair<T>(c, at + 16 * i + e0) : 0;
          q[i][half + 2] = r < rows ? load_pair<T>(c, at + 16 * i + 8 + e0) : 0;
        }
      }
    }
    const int place = s.end - s.queries;
    const int position[2] = {place + r0 / group, place + (r0 + 8) / group};
    const bool masked = c.mask.left >= 0 || c.mask.right >= 0 || (c.mask.causal != 0 && s.queries > 1);
    const bool whole = work.parts.count(s.end - first_key(c, s)) == 1;

    float out[kValueDim / 8][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    const T* now = nullptr;
    for (int tile = begin; tile < end; tile += kTile) {
      copies.next(c, work);
      wait_for_copies<S::kStages - 1>();
      __syncwarp();
      now = stages + stage * S::kStage;
      stage = stage + 1 == S::kStages ? 0 : stage + 1;
      const int from = tile + warp * kKeys;
      if (from < end) {
        const T* const k = now;
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
            for (int n = 0; n < kValueDim / 8; ++n)
              out[n][2 * half] *= factor, out[n][2 * half + 1] *= factor;
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

    // The warps' shares, put together in their order. Each lies where the warp's last keys were, which no
    // copy overwrites before the next tile.
    float* const share = reinterpret_cast<float*>(const_cast<T*>(now));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
      sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
      const int r = r0 + 8 * half;
      if (r >= rows) continue;
      if (lane % 4 == 0) stats[warp][r][0] = largest[half], stats[warp][r][1] = sum[half];
#pragma unroll
      for (int n = 0; n < kValueDim / 8; ++n)
        *reinterpret_cast<float2*>(share + r * S::kShareStride + 8 * n + e0) =
            make_float2(out[n][2 * half], out[n][2 * half + 1]);
    }
    __syncthreads();
    const float* const shares = share - warp * S::kStages * S::kStage * sizeof(T) / sizeof(float);
    for (int e = threadIdx.x; e < rows * kValueDim; e += kThreads) {
      const int r = e / kValueDim, d = e % kValueDim;
      float most = -INFINITY, total = 0, value = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) most = fmaxf(most, stats[w][r][0]);
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const float mine = stats[w][r][0];
        const float factor = mine == -INFINITY ? 0.0f : exp2_fast(mine - most);
        total += factor * stats[w][r][1];
        value += factor *
                 shares[w * (S::kStages * S::kStage * sizeof(T) / sizeof(float)) + r * S::kShareStride + d];
      }
      const int t = first_query + r / group, h = kv_head * group + r % group;
      if (!whole) {
        const std::int64_t at = (static_cast<std::int64_t>(t) * c.heads + h) * partial.parts + part;
        partial.out[at * kValueDim + d] = value;
        if (d == 0) partial.stats[2 * at] = most, partial.stats[2 * at + 1] = total;
      } else {
        value *= with_sink(c, h, most, total);
        store_out(c, t * c.out_row + h * c.out_head + d, total > 0 ? value / total : 0.0f);
        if (d == 0) store_lse(c, t, h, most, total);
      }
    }
    __syncthreads();
  }
}

// A block a query and head.
__global__ void __launch_bounds__(kThreads)
    merge_parts(const __grid_constant__ AttentionCall c, const Parts cut, const Partial partial) {
  let_next_start();
  wait_for_previous();
  const AttentionSequence& s = c.sequences[blockIdx.z];
  const int query = blockIdx.y, h = blockIdx.x;
  if (query >= s.queries) return;
  const int parts = cut.count(s.end - first_key(c, s)), t = s.first_query + query;
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

template <class T, int kKeyDim, int kValueDim>
void run(const AttentionCall& c, CudaExec& exec) {
  constexpr const char* op = "softmax_attention";
  using S = Shapes<T, kKeyDim, kValueDim>;
  CudaScratch scratch(exec);
  Work work{};
  // Few key heads: more parts of each, so that a single sequence fills the device.
  work.parts.most = std::clamp(256 / c.kv_heads, 32, kMostParts);
  int parts = 1;
  work.first = argument_list<kFewItems, int>(exec, op, c.count, scratch, [&](Index n) {
    const AttentionSequence& s = c.host_sequences[n];
    const int count = s.queries == 0 ? 0 : work.parts.count(s.end - first_key(c, s)), first = work.items;
    parts = std::max(parts, count), work.items += count * c.kv_heads;
    return first;
  });
  if (parts > 1) parts = (parts + 3) / 4 * 4;  // so that scratch stays where it is while a sequence grows
  Partial partial{nullptr, nullptr, parts};
  if (parts > 1) {
    partial.out = scratch.floats(Index{c.tokens} * c.heads, parts, kValueDim).data;
    partial.stats = scratch.floats(Index{c.tokens} * c.heads, parts, 2).data;
  }
  launch(exec, op, decode_part<T, kKeyDim, kValueDim>,
         {static_cast<unsigned>(exec.multiprocessors() * S::kBlocks), kThreads, S::kBytes}, c, work, partial);
  if (parts > 1)
    launch(exec, op, merge_parts,
           {{static_cast<unsigned>(c.heads), static_cast<unsigned>(c.most_queries),
             static_cast<unsigned>(c.count)},
            kThreads},
           c, work.parts, partial);
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
