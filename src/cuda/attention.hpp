// SPDX-License-Identifier: Apache-2.0
// What the kernels of softmax attention are given, checked and without options that they need not know.
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

constexpr int kFewSequences = 8;

// Of one call. q, k and v are of type `type` (f32, bf16 or f16), out is of type `out_type`. Strides are in
// elements.
struct AttentionCall {
  DType type = DType::bf16, out_type = DType::bf16;
  const void* q = nullptr;
  void* out = nullptr;
  float* lse = nullptr;  // [T, heads]; null: not wanted
  std::int64_t q_row = 0, q_head = 0, out_row = 0, out_head = 0, lse_row = 0, lse_head = 0;
  int tokens = 0, heads = 0, kv_heads = 0, key_dim = 0, value_dim = 0;
  int count = 0;  // of sequences
  int most_queries = 0, most_keys = 0;
  bool uniform = false;  // every sequence packed behind the one before: row strides equal, keys packed alike
  ArgumentList<AttentionSequence, kFewSequences> sequences;
  const AttentionSequence* host_sequences = nullptr;  // the same, readable by the host

  bool causal = false;
  int left = -1, right = -1;  // -1: no limit
  float scale = 0, soft_cap = 0;
  const float* sinks = nullptr;  // [heads]
  // bias[n, h, i, j], strides 0 on axes that are broadcast; null: none
  const float* bias = nullptr;
  std::int64_t bias_sequence = 0, bias_head = 0, bias_query = 0, bias_key = 0;
  const float* alibi = nullptr;  // [heads]
};

// Each says whether it takes a call (shapes, types, options, device); and queues it. out is not written by
// one that does not take it.
bool attention_sm90_takes(const AttentionCall& call, const CudaExec& exec);
void attention_sm90(const AttentionCall& call, CudaExec& exec);
bool attention_decode_takes(const AttentionCall& call, const CudaExec& exec);
void attention_decode(const AttentionCall& call, CudaExec& exec);
// Every call.
void attention_portable(const AttentionCall& call, CudaExec& exec);

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
