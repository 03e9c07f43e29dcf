// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/gated_output.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/qkv_projection.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct GatedDeltaProductConfig {
  Index hidden = 0, key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
  Index substeps = 2;  // Householder matrices a token
  ConvConfig conv;
  bool forget_gate = true, output_gate = true;
  bool negative_eigenvalues = true;  // beta in (0, 2)
  float norm_eps = 1e-5f;
};

// Gated DeltaProduct (Siems et al., 2025): Gated DeltaNet with n updates a token, each with a key, a value
// and a strength of its own, one decay before them and one read behind them:
//   q, k_1..n, v_1..n = silu(conv(W x));  q, k_j <- l2norm(q), l2norm(k_j);  beta_1..n = sigmoid(W_b x)
//   decay = -exp(a_log) softplus(W_a x + dt_bias), or none
//   o = gated_delta_product(q, k, v, decay, beta);  out = W_o (norm(o) silu(W_g x))
// Rows of W_k, W_v and W_b are ordered (j, head, channel). Keys of flash-linear-attention.
template <class Exec>
class GatedDeltaProduct final : public Mixer<Exec> {
 public:
  GatedDeltaProduct(const ParameterReader<Exec>& r, const GatedDeltaProductConfig& c)
      : c_(c),
        qkv_(r, c.hidden,
             {c.key_heads * c.key_dim, c.substeps * c.key_heads * c.key_dim,
              c.substeps * c.value_heads * c.value_dim},
             c.conv, Activation::silu, Activation::silu),
        b_(r, "b_proj", c.hidden, c.substeps * c.value_heads),
        output_({r, "o_proj", c.value_heads * c.value_dim, c.hidden},
                {r, "o_norm.weight", c.value_dim, c.norm_eps}, c.value_dim,
                c.output_gate ? Linear<Exec>(r, "g_proj", c.hidden, c.value_heads * c.value_dim)
                              : Linear<Exec>()) {
    if (!c.forget_gate) return;
    a_ = Linear<Exec>(r, "a_proj", c.hidden, c.value_heads);
    a_log_ = r.vector("A_log", c.value_heads);
    dt_bias_ = r.vector("dt_bias", c.value_heads);
  }

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = qkv_.new_inputs();
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.value_heads, c_.key_dim, c_.value_dim);
    state.substeps = c_.substeps;
    return state;
  }

  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0], rows = tokens * c_.substeps;
    const auto o = scratch.floats(tokens, c_.value_heads * c_.value_dim);
    const auto beta = scratch.floats(tokens, c_.substeps * c_.value_heads);
    const auto decay = scratch.floats(tokens, c_.forget_gate ? c_.value_heads : 0);
    const RecurrentStates<Exec> states(batch, exec);

    const auto qkv = qkv_(x, batch, scratch, exec);
    const auto q = qkv.q.split(1, c_.key_dim);
    const View<float, 3> k(qkv.k.data, {rows, c_.key_heads, c_.key_dim});
    const View<float, 3> v(qkv.v.data, {rows, c_.value_heads, c_.value_dim});
    l2_norm(L2Norm{q, q}, exec);
    l2_norm(L2Norm{k, k}, exec);
    b_(x, beta, batch.phase, exec);
    activate(Activate{beta, {}, beta, Activation::sigmoid, c_.negative_eigenvalues ? 2.f : 1.f}, exec);

    typename Backend<Exec>::LinearRecurrence args{q, k, v};
    if (c_.forget_gate) {
      a_(x, decay, batch.phase, exec);
      decay_gate(DecayGate{decay, a_log_.view(), dt_bias_.view(), decay}, exec);
      args.g = decay;
    }
    args.beta = View<float, 2>(beta.data, {rows, c_.value_heads});
    args.out = o.split(1, c_.value_dim), args.offsets = batch.offsets, args.states = states;
    args.substeps = c_.substeps;
    gated_delta_product(args, exec);
    output_(x, o, out, batch.phase, exec);
  }

 private:
  GatedDeltaProductConfig c_;
  QkvProjection<Exec> qkv_;
  Linear<Exec> a_, b_;
  typename Backend<Exec>::Vector a_log_, dt_bias_;
  GatedOutput<Exec> output_;
};

}  // namespace v0
}  // namespace ashlar
