// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/nn/short_convolution.hpp"
#include "ashlar/ops/decay_gate.hpp"

namespace ashlar {
inline namespace v0 {

struct GatedDeltaNetConfig {
  Index hidden = 0, key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0, conv_width = 0;
  bool negative_eigenvalues = false;  // beta in (0, 2)

  Index keys() const { return key_heads * key_dim; }
  Index values() const { return value_heads * value_dim; }
  Index channels() const { return 2 * keys() + values(); }
};

// Where each comes from is for a model's table of checkpoint keys to say.
template <class Exec>
struct GatedDeltaNetWeights {
  using Vector = typename Backend<Exec>::Vector;
  Linear<Exec> q, k, v;         // [Hk Dk], [Hk Dk], [Hv Dv] rows
  Linear<Exec> a, b;            // [Hv] rows: decay and strength
  Linear<Exec> g, o;            // [Hv Dv] rows: gate; [hidden] rows: output
  ShortConvolution<Exec> conv;  // [2 Hk Dk + Hv Dv, W]: channels of q, k, v
  Vector a_log, dt_bias;        // [Hv]
  Norm<Exec> norm;              // [Dv]
};

// Gated DeltaNet (Yang, Kautz and Hatamizadeh, 2024):
//   q, k, v = silu(conv(W_q x, W_k x, W_v x));  q, k <- l2norm(q), l2norm(k)
//   beta = sigmoid(W_b x), twice that with negative eigenvalues;  decay = -exp(a_log) softplus(W_a x +
//   dt_bias) o = gated_delta_rule(q, k, v, decay, beta);  out = W_o (norm(o) silu(W_g x))
template <class Exec>
class GatedDeltaNet final : public Mixer<Exec> {
 public:
  GatedDeltaNet(const GatedDeltaNetConfig& config, GatedDeltaNetWeights<Exec> weights)
      : c_(config), w_(std::move(weights)) {}

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = w_.conv.new_inputs();
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.value_heads, c_.key_dim, c_.value_dim);
    return state;
  }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0], keys = c_.keys();
    const auto projected = scratch.floats(tokens, c_.channels()),
               mixed = scratch.floats(tokens, c_.channels());
    const auto decay = scratch.floats(tokens, c_.value_heads), beta = scratch.floats(tokens, c_.value_heads);
    const auto gate = scratch.floats(tokens, c_.values()), o = scratch.floats(tokens, c_.values());
    auto q_of = [&](View<float, 2> all) { return all.slice(1, 0, keys); };
    auto k_of = [&](View<float, 2> all) { return all.slice(1, keys, 2 * keys); };
    auto v_of = [&](View<float, 2> all) { return all.slice(1, 2 * keys, c_.channels()); };
    const RecurrentStates<Exec> states(batch, exec);

    w_.q(x, q_of(projected), batch.phase, exec);
    w_.k(x, k_of(projected), batch.phase, exec);
    w_.v(x, v_of(projected), batch.phase, exec);
    w_.conv(projected, mixed, batch, exec);
    const auto q = q_of(mixed).split(1, c_.key_dim), k = k_of(mixed).split(1, c_.key_dim);
    l2_norm(L2Norm{q, q}, exec);
    l2_norm(L2Norm{k, k}, exec);

    w_.a(x, decay, batch.phase, exec);
    decay_gate(DecayGate{decay, w_.a_log.view(), w_.dt_bias.view(), decay}, exec);
    w_.b(x, beta, batch.phase, exec);
    activate(Activate{beta, {}, beta, Activation::sigmoid, c_.negative_eigenvalues ? 2.f : 1.f}, exec);

    const auto heads = o.split(1, c_.value_dim);
    linear_recurrence(typename Backend<Exec>::LinearRecurrence{q, k, v_of(mixed).split(1, c_.value_dim),
                                                               decay, beta, heads, 0, batch.offsets, states},
                      exec);
    w_.g(x, gate, batch.phase, exec);
    w_.norm(heads, heads, exec, gate.split(1, c_.value_dim));
    w_.o(o, out, batch.phase, exec);
  }

 private:
  GatedDeltaNetConfig c_;
  GatedDeltaNetWeights<Exec> w_;
};

}  // namespace v0
}  // namespace ashlar
