// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>

#include "ashlar/nn/gated_output.hpp"
#include "ashlar/nn/low_rank_linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/qkv_projection.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct KimiDeltaAttentionConfig {
  Index hidden = 0, key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
  ConvConfig conv;
  Index decay_rank = 0, gate_rank = 0;
  bool negative_eigenvalues = false;  // beta in (0, 2)
  std::optional<float> bound;         // the decay lies between this and 0: the safe gate
  float norm_eps = 1e-5f;

  Index keys() const { return key_heads * key_dim; }
  Index values() const { return value_heads * value_dim; }
};

// Where each comes from is for a model's table of checkpoint keys to say.
template <class Exec>
struct KimiDeltaAttentionWeights {
  QkvProjection<Exec> qkv;   // [Hk Dk], [Hk Dk], [Hv Dv] rows
  LowRankLinear<Exec> f, g;  // [Hv Dk] rows: decay; [Hv Dv] rows: gate, or none: then the output has one
  Linear<Exec> b;            // [Hv] rows: strength
  typename Backend<Exec>::Vector a_log, dt_bias;  // [Hv], [Hv Dk]
  GatedOutput<Exec> output;                       // norm [Dv], gated by a sigmoid of the caller's gate
};

// flash-linear-attention's keys.
template <class Exec>
KimiDeltaAttentionWeights<Exec> read_fla_kda(const ParameterReader<Exec>& r,
                                             const KimiDeltaAttentionConfig& c) {
  const Activation silu = Activation::silu;
  return {{r, c.hidden, {c.keys(), c.keys(), c.values()}, c.conv, silu, silu},
          {r, "f_proj.0", "f_proj.1", c.hidden, c.decay_rank, c.value_heads * c.key_dim},
          {r, "g_proj.0", "g_proj.1", c.hidden, c.gate_rank, c.values(), true},
          {r, "b_proj", c.hidden, c.value_heads},
          r.vector("A_log", c.value_heads),
          r.vector("dt_bias", c.value_heads * c.key_dim),
          {{r, "o_proj", c.values(), c.hidden},
           {r, "o_norm.weight", c.value_dim, c.norm_eps},
           c.value_dim,
           {},
           Activation::sigmoid}};
}

// Kimi delta attention (Kimi Team, 2025): Gated DeltaNet with a decay of each key channel and low-rank gates:
//   q, k, v = silu(conv(W x));  q, k <- l2norm(q), l2norm(k);  beta = sigmoid(W_b x)
//   decay = -exp(a_log) softplus(F_2 F_1 x + dt_bias), or bound sigmoid(exp(a_log) (F_2 F_1 x + dt_bias))
//   o = kda(q, k, v, decay, beta);  out = W_o (norm(o) sigmoid(G_2 G_1 x + b_g))
template <class Exec>
class KimiDeltaAttention final : public Mixer<Exec> {
 public:
  KimiDeltaAttention(const KimiDeltaAttentionConfig& config, KimiDeltaAttentionWeights<Exec> weights)
      : c_(config), w_(std::move(weights)) {}
  // With flash-linear-attention's keys.
  KimiDeltaAttention(const ParameterReader<Exec>& r, const KimiDeltaAttentionConfig& config)
      : KimiDeltaAttention(config, read_fla_kda(r, config)) {}

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = w_.qkv.new_inputs();
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.value_heads, c_.key_dim, c_.value_dim);
    return state;
  }

  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto o = scratch.floats(tokens, c_.values());
    const auto decay = scratch.floats(tokens, c_.value_heads * c_.key_dim);
    const auto beta = scratch.floats(tokens, c_.value_heads);
    const RecurrentStates<Exec> states(batch, exec);

    const auto qkv = w_.qkv(x, batch, scratch, exec);
    const auto q = qkv.q.split(1, c_.key_dim), k = qkv.k.split(1, c_.key_dim);
    l2_norm(L2Norm{q, q}, exec);
    l2_norm(L2Norm{k, k}, exec);
    w_.b(x, beta, batch.phase, exec);
    activate(Activate{beta, {}, beta, Activation::sigmoid, c_.negative_eigenvalues ? 2.f : 1.f}, exec);
    w_.f(x, decay, batch.phase, exec);
    DecayGate formula{decay, w_.a_log.view(), w_.dt_bias.view(), decay};
    if (c_.bound) formula.formula = DecayFormula::bounded, formula.bound = *c_.bound;
    decay_gate(formula, exec);

    typename Backend<Exec>::LinearRecurrence args{q, k, qkv.v.split(1, c_.value_dim)};
    args.gk = decay.split(1, c_.key_dim), args.beta = beta, args.out = o.split(1, c_.value_dim);
    args.offsets = batch.offsets, args.states = states;
    kda(args, exec);
    View<float, 2> gate;
    if (w_.g) gate = scratch.floats(tokens, c_.values()), w_.g(x, gate, batch.phase, exec);
    w_.output(x, o, out, batch.phase, exec, gate);
  }

 private:
  KimiDeltaAttentionConfig c_;
  KimiDeltaAttentionWeights<Exec> w_;
};

}  // namespace v0
}  // namespace ashlar
