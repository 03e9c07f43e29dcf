// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/nn/short_convolution.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct GatedDeltaNetConfig {
  Index hidden = 0, key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0, conv_width = 0;
  bool negative_eigenvalues = false;  // beta in (0, 2)
  // What flash-linear-attention's layer may have otherwise; conv_width 0: no convolution.
  bool output_gate = true, conv_biased = false;
  float norm_eps = 1e-5f;

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
  Linear<Exec> g, o;            // [Hv Dv] rows: gate, or none; [hidden] rows: output
  ShortConvolution<Exec> conv;  // [2 Hk Dk + Hv Dv, W]: channels of q, k, v; or none
  Vector a_log, dt_bias;        // [Hv]
  Norm<Exec> norm;              // [Dv]
};

// The keys of flash-linear-attention's layer: {q,k,v,a,b,g,o}_proj, {q,k,v}_conv1d, A_log, dt_bias, o_norm.
template <class Exec>
GatedDeltaNetWeights<Exec> read_fla_gated_delta_net(const ParameterReader<Exec>& r,
                                                    const GatedDeltaNetConfig& c) {
  GatedDeltaNetWeights<Exec> w;
  w.q = Linear<Exec>(r, "q_proj", c.hidden, c.keys());
  w.k = Linear<Exec>(r, "k_proj", c.hidden, c.keys());
  w.v = Linear<Exec>(r, "v_proj", c.hidden, c.values());
  w.a = Linear<Exec>(r, "a_proj", c.hidden, c.value_heads);
  w.b = Linear<Exec>(r, "b_proj", c.hidden, c.value_heads);
  if (c.output_gate) w.g = Linear<Exec>(r, "g_proj", c.hidden, c.values());
  w.o = Linear<Exec>(r, "o_proj", c.values(), c.hidden);
  if (c.conv_width != 0) {
    const bool biased = c.conv_biased || r.contains("q_conv1d.bias");
    const std::array<std::pair<const char*, Index>, 3> parts{
        {{"q_conv1d", c.keys()}, {"k_conv1d", c.keys()}, {"v_conv1d", c.values()}}};
    Tensor<float, 1> weight({c.channels() * c.conv_width}), bias({biased ? c.channels() : 0});
    float *to = weight.data(), *bias_to = bias.data();
    for (const auto& [name, channels] : parts) {
      const auto one = to_floats(r.tensor(concat(name, ".weight"), {channels, 1, c.conv_width}));
      to = std::copy(one.data(), one.data() + one.size(), to);
      if (!biased) continue;
      const auto its = to_floats(r.tensor(concat(name, ".bias"), {channels}));
      bias_to = std::copy(its.data(), its.data() + its.size(), bias_to);
    }
    w.conv = ShortConvolution<Exec>(
        r.vector(std::move(weight)), c.channels(), c.conv_width, Activation::silu,
        biased ? r.vector(std::move(bias)) : typename GatedDeltaNetWeights<Exec>::Vector());
  }
  w.a_log = r.vector("A_log", c.value_heads);
  w.dt_bias = r.vector("dt_bias", c.value_heads);
  w.norm = Norm<Exec>(r, "o_norm.weight", c.value_dim, c.norm_eps);
  return w;
}

// Gated DeltaNet (Yang, Kautz and Hatamizadeh, 2024):
//   q, k, v = silu(conv(W_q x, W_k x, W_v x));  q, k <- l2norm(q), l2norm(k)
//   beta = sigmoid(W_b x), twice that with negative eigenvalues
//   decay = -exp(a_log) softplus(W_a x + dt_bias)
//   o = gated_delta_rule(q, k, v, decay, beta);  out = W_o (norm(o) silu(W_g x))
// Without convolution or gate, those are left out.
template <class Exec>
class GatedDeltaNet final : public Mixer<Exec> {
 public:
  GatedDeltaNet(const GatedDeltaNetConfig& config, GatedDeltaNetWeights<Exec> weights)
      : c_(config), w_(std::move(weights)) {}
  // With flash-linear-attention's keys.
  GatedDeltaNet(const ParameterReader<Exec>& r, const GatedDeltaNetConfig& config)
      : GatedDeltaNet(config, read_fla_gated_delta_net(r, config)) {}

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    if (w_.conv) state.inputs = w_.conv.new_inputs();
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

    const typename Backend<Exec>::Dense layers[] = {w_.q.layer(x, q_of(projected), batch.phase),
                                                    w_.k.layer(x, k_of(projected), batch.phase),
                                                    w_.v.layer(x, v_of(projected), batch.phase),
                                                    w_.a.layer(x, decay, batch.phase),
                                                    w_.b.layer(x, beta, batch.phase),
                                                    w_.g.layer(x, gate, batch.phase)};
    dense(std::span(layers).first(w_.g ? 6 : 5), exec);
    if (w_.conv)
      w_.conv(projected, mixed, batch, exec);
    else
      activate(Activate{projected, {}, mixed, Activation::silu}, exec);
    const auto q = q_of(mixed).split(1, c_.key_dim), k = k_of(mixed).split(1, c_.key_dim);
    const auto qk = mixed.slice(1, 0, 2 * keys).split(1, c_.key_dim);
    l2_norm(L2Norm{qk, qk}, exec);
    DecayGate gates{decay, w_.a_log.view(), w_.dt_bias.view(), decay};
    gates.beta_logits = beta, gates.beta = beta, gates.beta_scale = c_.negative_eigenvalues ? 2.f : 1.f;
    decay_gate(gates, exec);

    const auto heads = o.split(1, c_.value_dim);
    gated_delta_rule(typename Backend<Exec>::LinearRecurrence{q, k, v_of(mixed).split(1, c_.value_dim), decay,
                                                              beta, heads, 0, batch.offsets, states},
                     exec);
    if (w_.g) {
      w_.norm(heads, heads, exec, gate.split(1, c_.value_dim));
    } else {
      w_.norm(heads, heads, exec);
    }
    w_.o.finish(o, out, batch.phase, exec);
  }

 private:
  GatedDeltaNetConfig c_;
  GatedDeltaNetWeights<Exec> w_;
};

}  // namespace v0
}  // namespace ashlar
