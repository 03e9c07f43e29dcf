// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/mixers/efficient_attention.hpp"
#include "ashlar/ops/bidirectional_linear_attention.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct FeatureAttentionConfig {
  bool causal = false;
  float normalizer_eps = 0;  // added to the sum of the weights
  float guard = 0;           // see BidirectionalLinearAttention; not with causal
};

// Attention whose weights are products of features q, k [T, H, M] in place of exponentials:
//   o_t = sum_s (q_t k_s) v_s / (sum_s q_t k_s + eps)
// over s <= t (the linear recurrence) or over the whole sequence, or its first `key_lengths` keys.
template <class Exec>
void attend_features(View<const float, 3> q, View<const float, 3> k, const HeadBatch& heads,
                     const FeatureAttentionConfig& c, std::span<const Index> key_lengths, Exec& exec) {
  if (!c.causal)
    return bidirectional_linear_attention(
        BidirectionalLinearAttention{q, k, heads.v, heads.out, heads.offsets, key_lengths, c.normalizer_eps,
                                     c.guard},
        exec);
  if (c.guard != 0) refuse("attend_features", "guard is ", c.guard, ", expected 0 when causal");
  if (!key_lengths.empty()) refuse("attend_features", "key lengths were given, expected none when causal");
  typename Backend<Exec>::LinearRecurrence args{q, k, heads.v};
  args.out = heads.out, args.offsets = heads.offsets, args.scale = 1;
  args.normalize = true, args.normalizer_eps = c.normalizer_eps;
  linear_attention(args, exec);
}

}  // namespace v0
}  // namespace ashlar
