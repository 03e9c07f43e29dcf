// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/feature_map.hpp"
#include "ashlar/nn/gated_output.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct LinearAttentionConfig {
  Index hidden = 0, heads = 0, kv_heads = 0, key_dim = 0, value_dim = 0;
  FeatureMapKind feature_map = FeatureMapKind::elementwise_product;
  bool tied_feature_maps = false;       // of q and k
  bool norm_q = false, norm_k = false;  // features are divided by their sum + 1e-4
  bool normalize = false;               // o_t is divided by q_t^T sum_{s <= t} k_s
  bool output_norm = true, norm_weight = true;
  float norm_eps = 1e-5f;
};

// Linear attention (Katharopoulos et al., 2020), without decay:
//   q, k = f(W_q x), f(W_k x), v = W_v x;  S_t = S_{t-1} + k_t v_t^T,  o_t = d^-1/2 S_t^T q_t
//   out = W_o norm(o), or W_o o
// d is the number of features. Keys of flash-linear-attention: {q,k,v,o}_proj, feature_map_{q,k}, norm.
template <class Exec>
class LinearAttention final : public Mixer<Exec> {
 public:
  LinearAttention(const ParameterReader<Exec>& r, const LinearAttentionConfig& c)
      : c_(c),
        q_(r, "q_proj", c.hidden, c.heads * c.key_dim),
        k_(r, "k_proj", c.hidden, c.kv_heads * c.key_dim),
        v_(r, "v_proj", c.hidden, c.kv_heads * c.value_dim),
        map_q_(r, "feature_map_q", c.feature_map, c.key_dim),
        map_k_(r, c.tied_feature_maps ? "feature_map_q" : "feature_map_k", c.feature_map, c.key_dim),
        output_({r, "o_proj", c.heads * c.value_dim, c.hidden},
                !c.output_norm  ? Norm<Exec>()
                : c.norm_weight ? Norm<Exec>(r, "norm.weight", c.value_dim, c.norm_eps)
                                : Norm<Exec>(c.norm_eps),
                c.value_dim) {}

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.heads, map_q_.features(),
                                                             c_.value_dim + (c_.normalize ? 1 : 0));
    return state;
  }

  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto v = scratch.floats(tokens, c_.kv_heads * c_.value_dim),
               o = scratch.floats(tokens, c_.heads * c_.value_dim);
    const RecurrentStates<Exec> states(batch, exec);
    const auto q = features(q_, map_q_, c_.norm_q, c_.heads, x, batch.phase, scratch, exec);
    const auto k = features(k_, map_k_, c_.norm_k, c_.kv_heads, x, batch.phase, scratch, exec);
    v_(x, v, batch.phase, exec);

    typename Backend<Exec>::LinearRecurrence args{q, k, v.split(1, c_.value_dim)};
    args.out = o.split(1, c_.value_dim), args.offsets = batch.offsets, args.states = states;
    args.normalize = c_.normalize;
    linear_attention(args, exec);
    output_(x, o, out, batch.phase, exec);
  }

 private:
  // [T, H, features], in memory of `scratch`.
  View<float, 3> features(const Linear<Exec>& w, const FeatureMap<Exec>& map, bool sums_to_one, Index heads,
                          View<const float, 2> x, Phase phase, typename Exec::Scratch& scratch,
                          Exec& exec) const {
    const Index tokens = x.shape[0], rows = tokens * heads;
    const auto projected = scratch.floats(tokens, heads * c_.key_dim);
    const auto mapped = scratch.floats(tokens, heads, map.features());
    w(x, projected, phase, exec);
    map({projected.data, {rows, c_.key_dim}}, {mapped.data, {rows, map.features()}}, phase, exec);
    if (sums_to_one) sum_norm(SumNorm{mapped, mapped, 1e-4f}, exec);
    return mapped;
  }

  LinearAttentionConfig c_;
  Linear<Exec> q_, k_, v_;
  FeatureMap<Exec> map_q_, map_k_;
  GatedOutput<Exec> output_;
};

}  // namespace v0
}  // namespace ashlar
