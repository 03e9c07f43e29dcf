// SPDX-License-Identifier: Apache-2.0
// What the kernels of softmax attention are given: checked, and without options that they need not know.
#pragma once
#include "ashlar/ops/softmax_attention.hpp"
#include "src/cuda/launch.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {

// Keys and values of one sequence, in elements: position j of [start, end) is row j - start; in a ring row j
// mod ring; in pages row pages[(j - start) / page] page + (j - start) mod page.
struct AttentionSequence {
  const void* k = nullptr;
  const void* v = nullptr;
  std::int64_t k_row = 0, k_head = 0, v_row = 0, v_head = 0;  // strides
  const Index* pages = nullptr;                               // in device memory
  int first_query = 0, queries = 0;                           // rows of q and out
  int start = 0, end = 0;                                     // query i stands at position end - queries + i
  int ring = 0, page = 0;                                     // 0: neither

  __host__ __device__ std::int64_t row(int j) const {
    if (ring != 0) return j % ring;
    j -= start;
    return page == 0 ? j : pages[j / page] * page + j % page;
  }
};

// So many in a kernel's arguments (5 KiB of the 32 that they may have): a copy before it costs more.
constexpr int kFewSequences = 64;
using AttentionSequences = ArgumentList<AttentionSequence, kFewSequences>;

// AttentionPattern (ops/attention_pattern.hpp) without its lists. -1 and 0: no such limit.
struct AttentionMask {
  int causal = 0, causal_block = 0, prefix = 0, left = -1, right = -1, chunk = 0, dilation = 1, strided = 0;

  // Of the query and the key at these positions.
  __host__ __device__ bool visible(int i, int j) const {
    if (causal != 0 && j > i && j >= prefix && (causal_block == 0 || j / causal_block > i / causal_block))
      return false;
    const bool near = (left < 0 || j >= i - left * dilation) && (right < 0 || j <= i + right * dilation) &&
                      (chunk == 0 || j / chunk == i / chunk) && (dilation == 1 || (i - j) % dilation == 0);
    const bool local = left >= 0 || right >= 0 || chunk != 0 || dilation != 1;
    if (strided == 0) return near;
    return (i - j) % strided == 0 || (local && near);
  }
  // The same of a simple() one.
  __host__ __device__ bool visible_simple(int i, int j) const {
    return (causal == 0 || j <= i) && (left < 0 || j >= i - left) && (right < 0 || j <= i + right);
  }
  // Causal or not, with a window at most.
  __host__ __device__ bool simple() const {
    return causal_block == 0 && prefix == 0 && chunk == 0 && dilation == 1 && strided == 0;
  }
  // Keys outside of [first, last) are visible to none of the queries from position `low` to `high`.
  __host__ __device__ int first_key(int low) const {
    int first = 0;
    if (strided != 0) return 0;
    if (left >= 0) first = low - left * dilation;
    if (chunk != 0 && low / chunk * chunk > first) first = low / chunk * chunk;
    return first > 0 ? first : 0;
  }
  __host__ __device__ int last_key(int high, int end) const {
    int last = end;
    if (causal != 0) {
      int seen = causal_block != 0 ? (high / causal_block + 1) * causal_block : high + 1;
      seen = seen > prefix ? seen : prefix;
      last = seen < last ? seen : last;
    }
    if (strided != 0) return last;
    if (right >= 0 && high + right * dilation + 1 < last) last = high + right * dilation + 1;
    if (chunk != 0 && (high / chunk + 1) * chunk < last) last = (high / chunk + 1) * chunk;
    return last;
  }
};

// Of one call; strides in elements.
struct AttentionCall {
  DType q_type = DType::f32, kv_type = DType::f32, out_type = DType::f32;
  const void* q = nullptr;
  void* out = nullptr;
  float* lse = nullptr;  // [T, heads]; null: not wanted
  std::int64_t q_row = 0, q_head = 0, out_row = 0, out_head = 0, lse_row = 0, lse_head = 0;
  int tokens = 0, heads = 0, kv_heads = 0, key_dim = 0, value_dim = 0;
  int count = 0;  // of sequences
  int most_queries = 0, most_keys = 0;
  AttentionSequences sequences{};
  const AttentionSequence* host_sequences = nullptr;  // the same, readable by the host

  AttentionMask mask{};
  float scale = 0, soft_cap = 0;
  bool plus_one = false;         // one more in the sum of exponentials
  const float* sinks = nullptr;  // [heads]
  const float* alibi = nullptr;  // [heads]
  // relative[h * relative_head + reach + clamp(j - i, -reach, reach)]
  const float* relative = nullptr;
  std::int64_t relative_head = 0;
  int reach = 0;
  // bias[n, h, i, j], strides 0 on axes that are broadcast
  const float* bias = nullptr;
  std::int64_t bias_sequence = 0, bias_head = 0, bias_query = 0, bias_key = 0;

  // No score but that of the product, its cap and sinks.
  __host__ __device__ bool plain_score() const {
    return alibi == nullptr && relative == nullptr && bias == nullptr && !plus_one;
  }
};

// Hopper's kernel (wgmma, TMA): 16-bit queries, keys and values. Whether it takes a call; and queues it.
bool attention_sm90_takes(const AttentionCall& call, const CudaExec& exec);
void attention_sm90(const AttentionCall& call, CudaExec& exec);
// Few queries and many keys, cut into parts; products of 16 bits (f32 rounded to bf16).
bool attention_decode_takes(const AttentionCall& call);
void attention_decode(const AttentionCall& call, CudaExec& exec);
// Tiles of tensor cores: 16-bit queries, keys and values with all options.
bool attention_tiled_takes(const AttentionCall& call);
void attention_tiled(const AttentionCall& call, CudaExec& exec);
// Every call, in f32.
void attention_exact(const AttentionCall& call, CudaExec& exec);

// to [rows, heads, dim], packed = from, rounded to bf16.
void round_rows(const float* from, std::int64_t row, std::int64_t head, Index rows, int heads, int dim,
                bf16* to, CudaExec& exec);

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
