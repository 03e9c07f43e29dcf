// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// The steps of a sparse mixture of experts (Shazeer et al., 2017): route, group, gather each expert's rows,
// run the experts (dense, for several layers at once), combine.

enum class RouterScore : std::uint8_t { softmax, sigmoid };

// Chooses k of E experts for each token:
//   score  = softmax(logits), or sigmoid(logits)
//   choice = score + selection_bias
//   With more than one group: a group is E / groups neighbouring experts and worth the sum of its two largest
//   choices; outside the chosen_groups best ones choice is 0.
//   experts = the k largest choices, best first; of equal ones the lower expert, and the lower group
//   weights = scale * score[experts], with `renormalize` divided by their sum + 1e-20
// Sources: softmax, Fedus et al., 2021; renormalised, Mixtral, Jiang et al., 2024; sigmoid, bias and groups,
// DeepSeek-V3, 2024. Refused: shapes that differ, more experts a token than E, groups that do not divide E,
// chosen_groups outside [1, groups]. Backward needs logits and experts.
template <class T>
struct MoeRouteArgs {
  View<const T, 2> logits;          // [T, E]
  View<const T, 1> selection_bias;  // [E]; empty: none
  View<std::int32_t, 2> experts;    // [T, k]
  View<T, 2> weights;               // [T, k]
  RouterScore score = RouterScore::softmax;
  bool renormalize = true;
  T scale = 1;
  Index groups = 1, chosen_groups = 1;
};
using MoeRoute = MoeRouteArgs<float>;

void moe_route(const MoeRoute& args, CpuExec& exec);

// Puts the T k pairs of a token and one of its experts in the order of the experts, of one expert in the
// order of the tokens: pairs offsets[e] to offsets[e + 1] are expert e's, pair i is of token tokens[i], and
// rows[t, j] is the pair of experts[t, j]. Refused: shapes that differ, an expert outside [0, E).
struct MoeGroup {
  View<const std::int32_t, 2> experts;  // [T, k]
  View<Index, 1> offsets;               // [E + 1]
  View<Index, 1> tokens;                // [T k]
  View<Index, 2> rows;                  // [T, k]
};

void moe_group(const MoeGroup& args, CpuExec& exec);

// out[i, :] = x[tokens[i], :]. Refused: shapes that differ, a token outside of x. `out` must not overlap `x`.
template <class T>
struct MoeGatherArgs {
  View<const T, 2> x;           // [T, D]
  View<const Index, 1> tokens;  // [N]
  View<T, 2> out;               // [N, D]
};
using MoeGather = MoeGatherArgs<float>;

void moe_gather(const MoeGather& args, CpuExec& exec);

// out[t, :] = sum_j weights[t, j] y[rows[t, j], :], in the order of j, plus a shared expert's part where
// there is one: sigmoid(shared_gate[t]) shared[t, :], or shared[t, :] without a gate (Qwen2-MoE, 2024;
// DeepSeek- MoE, Dai et al., 2024). Refused: shapes that differ, a row outside of y, a gate without `shared`.
// `out` may be `shared`. Backward needs y, weights and rows.
template <class T>
struct MoeCombineArgs {
  View<const T, 2> y;            // [N, D]
  View<const T, 2> weights;      // [T, k]
  View<const Index, 2> rows;     // [T, k]
  View<T, 2> out;                // [T, D]
  View<const T, 2> shared;       // [T, D]; empty: none
  View<const T, 2> shared_gate;  // [T, 1], logits of a sigmoid; empty: none
};
using MoeCombine = MoeCombineArgs<float>;

void moe_combine(const MoeCombine& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
