// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/group_map.hpp"

namespace ashlar {
inline namespace v0 {

// Softmax attention inside the groups of an image: windows, shifted or overlapping windows, grids, several
// views (Swin: Liu et al., 2021; SwinV2: Liu et al., 2022; HAT: Chen et al., 2023; LRGT: Yang et al., 2024).
// For each head and group, query n and key m of the group:
//   s = scale q_n . k_m,  or with tau:  tau q_n / max(|q_n|, 1e-12) . k_m / max(|k_m|, 1e-12)
//   s += bias[head, n, m],  + shift_mask where a shifted window's n and m are of different regions
//   out_n = sum_m softmax_m(s) v_m
// A slot outside the image has q = k = v = 0: as a key it competes with the score 0 + bias, unmasked; as a
// query it has no result. Views may be strided, so q, k, v can be channel ranges of one projection, and heads
// can be run in several calls with groups of their own. Refused: shapes and maps that do not fit, a shifted
// map with a mask and keys of another map. `out` may be q; it must not overlap k or v. Backward needs q, k,
// v, bias and out.
template <class T>
struct WindowAttentionArgs {
  View<const T, 4> q;  // [N, H, W, heads * Dk]
  View<const T, 4> k;  // [N, H', W', heads * Dk]
  View<const T, 4> v;  // [N, H', W', heads * Dv]
  View<T, 4> out;      // [N, H, W, heads * Dv]
  Index heads = 1;
  GroupMap map;            // of queries; N is a multiple of its views
  GroupMap key_map;        // of keys, with as many groups; empty: as `map`
  T scale = 0;             // 0: Dk^-1/2
  View<const T, 1> tau;    // [heads]; empty: scaled dot products
  View<const T, 3> bias;   // [heads, queries, keys] of a group, any strides; empty: none. Read where it is
                           // when neighbouring queries are neighbours in memory, else transposed once a call
  T shift_mask = T(-100);  // 0: none
};
using WindowAttention = WindowAttentionArgs<float>;

void window_attention(const WindowAttention& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
