// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"

namespace ashlar {
inline namespace v0 {

// Keys and values of one sequence, for example a view of its cache.
template <class T>
struct KeyValueArgs {
  View<const T, 3> k;  // [S, Hkv, D]
  View<const T, 3> v;  // [S, Hkv, Dv]
};
using KeyValue = KeyValueArgs<float>;

// Scaled dot-product attention with an online softmax (Vaswani et al., 2017; Milakov and Gimelshein, 2018;
// Dao et al., 2022). For query i of a sequence of Tq queries and S keys, which stands at position p = S - Tq
// + i, and query head h with its key head h / (H / Hkv):
//   o_i = sum_j softmax_j(scale q_i k_j) v_j  over the visible keys j:
//   all of them, or with `causal` j <= p, and with a `window` w > 0 also j > p - w.
// A query that sees nothing gives zeros. Key blocks outside the pattern cost nothing; 2 (D + Dv) flops a
// visible pair. Refused: shapes that differ, H not a multiple of Hkv, more queries than keys when causal, bad
// offsets.
template <class T>
struct SoftmaxAttentionArgs {
  View<const T, 3> q;                          // [T, H, D]
  Offsets offsets;                             // of the queries
  std::span<const KeyValueArgs<T>> sequences;  // keys and values, one a sequence
  View<T, 3> out;                              // [T, H, Dv]
  bool causal = true;
  Index window = 0;  // 0: none
  T scale = 0;       // 0: D^-1/2
};
using SoftmaxAttention = SoftmaxAttentionArgs<float>;

void softmax_attention(const SoftmaxAttention& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
