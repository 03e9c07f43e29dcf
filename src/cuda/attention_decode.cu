// SPDX-License-Identifier: Apache-2.0
// Few queries with many keys (flash-decoding; Dao et al., 2023): bound by the memory that keys and values are
// read from. A sequence's visible keys are cut into parts by their own number; a part of a key head is an
// item of work for all query heads and queries that read it, up to 16 rows of a tensor core's tile, so that
// it is read once. As many blocks as fit go over equal shares of all items without draining their copies in
// between: which block has an item changes nothing of its result. Each warp goes over 16 keys at a time by
// itself. A second kernel puts the parts together, in their order.
#include "src/cuda/attention_parts.cuh"
#include "src/cuda/mma.cuh"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp, kRows = 16, kKeys = 16, kTile = kWarps * kKeys;
constexpr int kFewItems = 64;

struct Work {
  Parts parts;
  int items;                           // of all sequences: by sequence, key head, part
  ArgumentList<int, kFewItems> first;  // item of a sequence
};

template <class Kv, int kKeyDim, int kValueDim>
struct Shapes {
  // So that rows that are read together are not on the same banks.
  static constexpr int kKeyStride = kKeyDim + 8, kValueStride = kValueDim + (sizeof(Kv) == 2 ? 8 : 4);
  static constexpr int kStages = kKeyDim * sizeof(Kv) >= 384 ? 2 : 3;
  static constexpr int kStage = kKeys * (kKeyStride + kValueStride);  // elements of a warp
  static constexpr std::size_t kBytes = sizeof(Kv) * kWarps * kStages * kStage;
  static constexpr int kShareStride = kValueDim + 8;  // floats of a row of a warp's share, kept in a stage
  static_assert(sizeof(float) * kRows * kShareStride <= sizeof(Kv) * kStage);
  static constexpr int kFit = static_cast<int>((std::size_t{220} << 10) / (kBytes + 2048));
  static constexpr int kBlocks = kFit < 1 ? 1 : kFit > 4 ? 4 : kFit;  // of a multiprocessor
};

template <class T>
__device__ __forceinline__ unsigned load_pair(const AttentionCall& c, std::int64_t at) {
  if (c.q_type == DType::f32) {
    const float* q = static_cast<const float*>(c.q) + at;
    return pack<T>(q[0], q[1]);
  }
  return *reinterpret_cast<const unsigned*>(static_cast<const T*>(c.q) + at);
}

// Keys [16, 16 of kKeyDim] and values [16, 16 of kValueDim] of a warp as second operands of two products.
template <class T, int kStride>
__device__ __forceinline__ void load_keys(unsigned (&b)[4], const T* k) {
  const int lane = threadIdx.x % kWarp;
  load_matrices(b, k + (lane % 8 + lane / 16 * 8) * kStride + lane / 8 % 2 * 8);
}
template <class T, int kStride>
__device__ __forceinline__ void load_values(unsigned (&b)[4], const T* v) {
  const int lane = threadIdx.x % kWarp;
  load_matrices_transposed(b, v + lane % 16 * kStride + lane / 16 * 8);
}
template <class T, int kStride>
__device__ __forceinline__ void load_keys(unsigned (&b)[4], const float* k) {
  const int lane = threadIdx.x % kWarp;
  k += lane / 4 * kStride + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 x = *reinterpret_cast<const float2*>(k + i / 2 * 8 * kStride + i % 2 * 8);
    b[i] = pack<T>(x.x, x.y);
  }
}
template <class T, int kStride>
__device__ __forceinline__ void load_values(unsigned (&b)[4], const float* v) {
  const int lane = threadIdx.x % kWarp;
  v += lane % 4 * 2 * kStride + lane / 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* const x = v + i % 2 * 8 * kStride + i / 2 * 8;
    b[i] = pack<T>(x[0], x[kStride]);
  }
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
template <class Kv, int kKeyDim, int kValueDim>
struct Copies {
  using S = Shapes<Kv, kKeyDim, kValueDim>;
  AttentionSequence s;
  const Kv *k, *v;
  Kv* stages;
  int item, last, from, end, stage = 0, row = -1;

  __device__ __forceinline__ void open(const AttentionCall& c, const Work& work) {
    if (item >= last) return;
    const Item i = item_at(c, work, item);
    s = c.sequences[i.sequence], from = i.begin, end = i.end;
    k = static_cast<const Kv*>(s.k) + i.head * s.k_head, v = static_cast<const Kv*>(s.v) + i.head * s.v_head;
    find_row();
  }
  // A copy before it is needed: a page's number comes from memory.
  __device__ __forceinline__ void find_row() {
    const int mine = from + threadIdx.x / kWarp * kKeys + threadIdx.x % kKeys;
    row = mine < end ? static_cast<int>(s.row(mine)) : -1;
  }
  template <int kDim, int kStride>
  __device__ __forceinline__ void copy(Kv* to, const Kv* rows, std::int64_t stride) const {
    constexpr int kChunk = 16 / sizeof(Kv), kChunks = kDim / kChunk;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < kKeys * kChunks / kWarp; ++i) {
      const int chunk = i * kWarp + lane, j = chunk / kChunks, d = chunk % kChunks * kChunk;
      const int at = __shfl_sync(~0u, row, j);
      copy_async(to + j * kStride + d, rows + (at < 0 ? 0 : at) * stride + d, at >= 0);
    }
  }
  __device__ __forceinline__ void next(const AttentionCall& c, const Work& work) {
    if (item < last) {
      if (from + static_cast<int>(threadIdx.x) / kWarp * kKeys < end) {
        Kv* const to = stages + stage * S::kStage;
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

template <class T, class Kv, int kKeyDim, int kValueDim>
__global__ void __launch_bounds__(kThreads)
    decode_part(const __grid_constant__ AttentionCall c, const __grid_constant__ Work work,
                const Partial partial) {
  using S = Shapes<Kv, kKeyDim, kValueDim>;
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
  Kv* const stages = reinterpret_cast<Kv*>(memory) + warp * S::kStages * S::kStage;
  Copies<Kv, kKeyDim, kValueDim> copies;
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
    const Kv* now = nullptr;
    for (int tile = begin; tile < end; tile += kTile) {
      copies.next(c, work);
      wait_for_copies<S::kStages - 1>();
      __syncwarp();
      now = stages + stage * S::kStage;
      stage = stage + 1 == S::kStages ? 0 : stage + 1;
      const int from = tile + warp * kKeys;
      if (from < end) {
        const Kv* const k = now;
        const Kv* const v = k + kKeys * S::kKeyStride;
        float score[2][4] = {};
#pragma unroll
        for (int i = 0; i < kKeyDim / 16; ++i) {
          unsigned b[4];
          load_keys<T, S::kKeyStride>(b, k + 16 * i);
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
          load_values<T, S::kValueStride>(b, v + 16 * n);
          multiply<T>(out[2 * n], weights, b[0], b[1]);
          multiply<T>(out[2 * n + 1], weights, b[2], b[3]);
        }
      }
      __syncwarp();
    }

    // The warps' shares, put together in their order. Each lies where the warp's last keys were, which no
    // copy overwrites before the next tile.
    float* const share = reinterpret_cast<float*>(const_cast<Kv*>(now));
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
    constexpr int kShares = S::kStages * S::kStage * sizeof(Kv) / sizeof(float);  // from warp to warp
    const float* const shares = share - warp * kShares;
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
        value += factor * shares[w * kShares + r * S::kShareStride + d];
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

template <class T, class Kv, int kKeyDim, int kValueDim>
void run(const AttentionCall& c, CudaExec& exec) {
  constexpr const char* op = "softmax_attention";
  using S = Shapes<Kv, kKeyDim, kValueDim>;
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
  launch(exec, op, decode_part<T, Kv, kKeyDim, kValueDim>,
         {static_cast<unsigned>(exec.multiprocessors() * S::kBlocks), kThreads, S::kBytes}, c, work, partial);
  if (parts > 1) merge_parts(c, work.parts, partial, exec);
}

bool has_dims(const AttentionCall& c, int key_dim, int value_dim) {
  return c.key_dim == key_dim && c.value_dim == value_dim;
}

template <class T, class Kv>
void run(const AttentionCall& c, CudaExec& exec) {
  if (has_dims(c, 64, 64)) return run<T, Kv, 64, 64>(c, exec);
  if (has_dims(c, 80, 80)) return run<T, Kv, 80, 80>(c, exec);
  if (has_dims(c, 96, 96)) return run<T, Kv, 96, 96>(c, exec);
  if (has_dims(c, 128, 128)) return run<T, Kv, 128, 128>(c, exec);
  if constexpr (sizeof(Kv) == 2) {
    if (has_dims(c, 192, 128)) return run<T, Kv, 192, 128>(c, exec);
    run<T, Kv, 256, 256>(c, exec);
  }
}

}  // namespace

bool attention_decode_takes(const AttentionCall& c) {
  const bool small =
      has_dims(c, 64, 64) || has_dims(c, 80, 80) || has_dims(c, 96, 96) || has_dims(c, 128, 128);
  const bool dims = small || (c.kv_type != DType::f32 && (has_dims(c, 192, 128) || has_dims(c, 256, 256)));
  if (!dims || !c.mask.simple() || !c.plain_score() || c.kv_heads == 0) return false;
  if (c.kv_type == DType::f32 && c.q_type == DType::f16) return false;
  if (c.most_queries * (c.heads / c.kv_heads) > kRows) return false;
  if (c.q_type != DType::f32 && (c.q_row % 2 != 0 || c.q_head % 2 != 0)) return false;
  auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const int chunk = c.kv_type == DType::f32 ? 4 : 8;
  for (int n = 0; n < c.count; ++n) {
    const AttentionSequence& s = c.host_sequences[n];
    if (s.end == s.start && s.queries > 0) return false;
    if (!aligned(s.k) || !aligned(s.v) || (s.k_row | s.k_head | s.v_row | s.v_head) % chunk != 0)
      return false;
  }
  return true;
}

void attention_decode(const AttentionCall& c, CudaExec& exec) {
  if (c.kv_type == DType::f32) return run<bf16, float>(c, exec);
  c.kv_type == DType::bf16 ? run<bf16, bf16>(c, exec) : run<f16, f16>(c, exec);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
