// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/dtype.hpp"
#include "ashlar/core/offsets.hpp"
#include "ashlar/ops/attention_pattern.hpp"
#include "ashlar/ops/attention_score.hpp"

namespace ashlar {
inline namespace v0 {

// Keys and values of one sequence: its positions [start, end()). Position j is row j - start of k and v; in a
// ring (a cache of a window's size) row j mod rows; in a paged cache row pages[(j - start) / page] * page +
// (j - start) mod page.
template <class T>
struct KeyValueArgs {
  View<const T, 3> k;  // [rows, Hkv, D]
  View<const T, 3> v;  // [rows, Hkv, Dv]
  Index start = 0;
  Index length = -1;  // of the sequence, with what is before `start`; -1: start + rows
  bool ring = false;
  std::span<const Index> pages{};
  Index page = 0;

  Index end() const { return length < 0 ? start + k.shape[0] : length; }
  Index row(Index j) const {
    if (ring) return j % k.shape[0];
    j -= start;
    return page == 0 ? j : pages[static_cast<std::size_t>(j / page)] * page + j % page;
  }
};
using KeyValue = KeyValueArgs<float>;

enum class AttentionNormalizer : std::uint8_t {
  softmax,           // e^s / sum e^s
  softmax_plus_one,  // e^s / (1 + sum e^s), the softmax "off by one"
  sigmoid,           // 1 / (1 + e^-s) (Ramapuram et al., 2024)
  relu,              // max(s, 0)
  relu_squared       // max(s, 0)^2
};

// Scaled dot-product attention (Vaswani et al., 2017) with an online softmax (Milakov and Gimelshein, 2018;
// Dao et al., 2022). Query i of a sequence of Tq queries and S keys stands at position S - Tq + i; query head
// h reads key head h / (H / Hkv):
//   o_i = sum_j P_ij v_j,  P_i = normalizer of the scores s_ij (AttentionScore) of the visible keys j
//         (AttentionPattern), of which with `top_k` only those that are at least the k-th largest stay
//   lse_i = ln sum_j e^(s_ij),  entropy_i = -sum_j P_ij ln P_ij in nats; both with the sink, if there is one
// A query that sees nothing gives zeros, -inf and 0. Key blocks outside the pattern cost nothing; 2 (D + Dv)
// flops a visible pair. k and v may share memory (latent attention: v is the first columns of k), D may be 0
// (scores are the bias alone). Few queries with many keys are cut into parts of the keys, always the same,
// so that results do not depend on threads or batch-mates. Refused: shapes that differ, H not a multiple of
// Hkv, more queries than positions when something depends on positions, contradictory patterns, tables that
// point outside, lse and entropy of what is not a softmax.
template <class T, class Kv = T, class Q = T, class Out = T>
struct SoftmaxAttentionArgs {
  View<const Q, 3> q;                           // [T, H, D]
  Offsets offsets;                              // of the queries
  std::span<const KeyValueArgs<Kv>> sequences;  // keys and values, one a sequence
  View<Out, 3> out;                             // [T, H, Dv]
  AttentionPattern pattern{};
  AttentionScoreArgs<T> score{};
  AttentionNormalizer normalizer = AttentionNormalizer::softmax;
  Index top_k = 0;       // 0: all
  View<T, 2> lse{};      // [T, H], on request
  View<T, 2> entropy{};  // [T, H], on request; a head's entropy is the mean over its queries
};
using SoftmaxAttention = SoftmaxAttentionArgs<float>;

void softmax_attention(const SoftmaxAttention& args, CpuExec& exec);
// Keys and values, and queries, of bf16.
template <class Kv, class Q>
void softmax_attention(const SoftmaxAttentionArgs<float, Kv, Q>& args, CpuExec& exec);

// Attention to two disjoint sets of keys made into attention to both, from their outputs and log-sum-exps:
//   lse = ln(e^lse_a + e^lse_b),  out = e^(lse_a - lse) a + e^(lse_b - lse) b
// An empty part (-inf) leaves the other as it is. out and lse may be a's or b's own; lse may be empty.
template <class T>
struct MergeAttentionArgs {
  View<const T, 3> a;      // [T, H, Dv]
  View<const T, 2> lse_a;  // [T, H]
  View<const T, 3> b;
  View<const T, 2> lse_b;
  View<T, 3> out;
  View<T, 2> lse{};
};
using MergeAttention = MergeAttentionArgs<float>;

void merge_attention(const MergeAttention& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
