// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/gated_output.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/qkv_projection.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct DeltaNetConfig {
  Index hidden = 0, heads = 0, key_dim = 0, value_dim = 0;
  ConvConfig conv;
  Activation qk_activation = Activation::silu;  // elu1: elu + 1
  bool sum_norm = false;                        // q and k are divided by their sums, not by their lengths
  bool beta = true;                             // false: strength 1
  bool negative_eigenvalues = false;            // strengths are doubled
  bool output_gate = false;
  float norm_eps = 1e-5f;
};

// DeltaNet (Schlag, Irie and Schmidhuber, 2021; Yang et al., 2024):
//   q, k = f(conv(W x)), v = silu(conv(W_v x));  q, k <- l2norm(q), l2norm(k);  beta = sigmoid(W_b x)
//   o = delta_rule(q, k, v, beta);  out = W_o norm(o), or W_o (norm(o) silu(W_g x))
// Keys of flash-linear-attention.
template <class Exec>
class DeltaNet final : public Mixer<Exec> {
 public:
  DeltaNet(const ParameterReader<Exec>& r, const DeltaNetConfig& c)
      : c_(c),
        qkv_(r, c.hidden, {c.heads * c.key_dim, c.heads * c.key_dim, c.heads * c.value_dim}, c.conv,
             c.qk_activation, Activation::silu),
        output_({r, "o_proj", c.heads * c.value_dim, c.hidden}, {r, "o_norm.weight", c.value_dim, c.norm_eps},
                c.value_dim,
                c.output_gate ? Linear<Exec>(r, "g_proj", c.hidden, c.heads * c.value_dim) : Linear<Exec>()) {
    if (c.beta) {
      b_ = Linear<Exec>(r, "b_proj", c.hidden, c.heads);
    } else {
      Tensor<float, 1> strength({c.heads});
      std::fill_n(strength.data(), c.heads, full_strength());
      strength_ = Backend<Exec>::vector(std::move(strength), r.exec());
    }
  }

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = qkv_.new_inputs();
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.heads, c_.key_dim, c_.value_dim);
    return state;
  }

  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto o = scratch.floats(tokens, c_.heads * c_.value_dim);
    const auto beta = scratch.floats(tokens, c_.beta ? c_.heads : 0);
    const RecurrentStates<Exec> states(batch, exec);

    const auto qkv = qkv_(x, batch, scratch, exec);
    const auto q = qkv.q.split(1, c_.key_dim), k = qkv.k.split(1, c_.key_dim);
    for (const auto& y : {q, k})
      if (c_.sum_norm)
        sum_norm(SumNorm{y, y}, exec);
      else
        l2_norm(L2Norm{y, y}, exec);

    typename Backend<Exec>::LinearRecurrence args{q, k, qkv.v.split(1, c_.value_dim)};
    if (c_.beta) {
      b_(x, beta, batch.phase, exec);
      activate(Activate{beta, {}, beta, Activation::sigmoid, full_strength()}, exec);
      args.beta = beta;
    } else {
      args.beta = constant_decay(strength_.view(), tokens);
    }
    args.out = o.split(1, c_.value_dim), args.offsets = batch.offsets, args.states = states;
    delta_rule(args, exec);
    output_(x, o, out, batch.phase, exec);
  }

 private:
  float full_strength() const { return c_.negative_eigenvalues ? 2.f : 1.f; }

  DeltaNetConfig c_;
  QkvProjection<Exec> qkv_;
  Linear<Exec> b_;
  typename Backend<Exec>::Vector strength_;  // [H], of layers without beta
  GatedOutput<Exec> output_;
};

}  // namespace v0
}  // namespace ashlar
