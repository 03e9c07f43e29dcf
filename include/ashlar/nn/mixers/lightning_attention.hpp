// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct LightningAttentionConfig {
  Index hidden = 0, heads = 0, head_dim = 0;
  Activation activation = Activation::silu;
  float norm_eps = 1e-6f;
};

// Lightning attention (Qin et al., 2024) as in MiniMax-01 (2025):
//   q, k, v = activation(W_qkv x), for each head its q, k and v;  o = lightning_attention(q, k, v, decay),
//   scale 1 out = W_o (norm(o) sigmoid(W_g x)), the norm over all heads
// `decay` [heads], log decays (minimax_decay). Keys: qkv_proj, norm.weight, output_gate, out_proj.
template <class Exec>
class LightningAttention final : public Mixer<Exec> {
 public:
  LightningAttention(const ParameterReader<Exec>& r, const LightningAttentionConfig& c,
                     Tensor<float, 1> decay)
      : c_(c),
        qkv_(r, "qkv_proj", c.hidden, 3 * width()),
        gate_(r, "output_gate", c.hidden, width()),
        out_(r, "out_proj", width(), c.hidden),
        norm_(r, "norm.weight", width(), c.norm_eps),
        decay_(Backend<Exec>::vector(std::move(decay), r.exec())) {}

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.heads, c_.head_dim, c_.head_dim);
    return state;
  }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0], dim = c_.head_dim;
    const auto projected = scratch.floats(tokens, 3 * width()), gate = scratch.floats(tokens, width()),
               o = scratch.floats(tokens, width());
    const RecurrentStates<Exec> states(batch, exec);
    qkv_(x, projected, batch.phase, exec);
    activate(Activate{projected, {}, projected, c_.activation}, exec);
    const auto heads = projected.split(1, 3 * dim);
    lightning_attention(typename Backend<Exec>::LinearRecurrence{heads.slice(2, 0, dim),
                                                                 heads.slice(2, dim, 2 * dim),
                                                                 heads.slice(2, 2 * dim, 3 * dim),
                                                                 constant_decay(decay_.view(), tokens),
                                                                 {},
                                                                 o.split(1, dim),
                                                                 1,
                                                                 batch.offsets,
                                                                 states},
                        exec);
    gate_(x, gate, batch.phase, exec);
    norm_(o.split(1, width()), o.split(1, width()), exec, gate.split(1, width()), Activation::sigmoid);
    out_(o, out, batch.phase, exec);
  }

 private:
  Index width() const { return c_.heads * c_.head_dim; }

  LightningAttentionConfig c_;
  Linear<Exec> qkv_, gate_, out_;
  Norm<Exec> norm_;
  typename Backend<Exec>::Vector decay_;
};

}  // namespace v0
}  // namespace ashlar
