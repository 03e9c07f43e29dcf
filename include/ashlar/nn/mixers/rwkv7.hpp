// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/low_rank_linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/nn/shift_tokens.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"
#include "ashlar/ops/rwkv7_gates.hpp"

namespace ashlar {
inline namespace v0 {

struct Rwkv7Config {
  Index hidden = 0, heads = 0, head_dim = 0, value_dim = 0;  // the latter of a head
  Index decay_rank = 0, gate_rank = 0, rate_rank = 0, value_rank = 0;
  bool first = false;      // the first such layer: its values are what later ones are drawn towards
  float norm_eps = 1e-5f;  // head_dim times that is the group norm's
  float key_eps = 1e-6f;   // inside the root of the keys' norm

  Index keys() const { return heads * head_dim; }
  Index values() const { return heads * value_dim; }
};

// RWKV-7, time mixing (Peng et al., 2025), with x_n = x + mu_n (x' - x) for n = r, w, k, v, a, g and the
// token x' before:
//   r, k, v = W_r x_r, W_k x_k, W_v x_v
//   v <- v + sigmoid(low_rank(x_v)) (v_first - v)                      behind the first layer
//   decay = -e^(-1/2) sigmoid(low_rank(x_w)),  eta = sigmoid(low_rank(x_a)),  gate = low_rank(x_g)
//   kk = l2norm(k k_k),  k <- k (1 + (eta - 1) k_a)
//   S_t = (diag(exp(decay_t)) - (kk_t eta_t) kk_t^T) S_{t-1} + k_t v_t^T,  o_t = S_t^T r_t
//   out = W_o ((group_norm(o) + (sum r k r_k) v) gate)
// The token before a sequence's first is LayerState::inputs, v_first SequenceBatch::shared [T, heads
// value_dim]. Keys are those of flash-linear-attention, also of its first version, which has the mu in one
// tensor x_x.
template <class Exec>
class Rwkv7 final : public Mixer<Exec> {
 public:
  Rwkv7(const ParameterReader<Exec>& r, const Rwkv7Config& c)
      : c_(c),
        r_(r, "r_proj", c.hidden, c.keys()),
        k_(r, "k_proj", c.hidden, c.keys()),
        v_(r, "v_proj", c.hidden, c.values()),
        o_(r, "o_proj", c.values(), c.hidden),
        w_low_(low_rank(r, "w_lora", c.decay_rank, c.keys(), Activation::tanh, true)),
        a_low_(low_rank(r, "a_lora", c.rate_rank, c.keys(), Activation::identity, true)),
        g_low_(low_rank(r, "g_lora", c.gate_rank, c.values(), Activation::sigmoid, false)),
        mu_(r.vector(read_mu(r, c.hidden))),
        k_k_(r.vector("k_k", c.keys())),
        k_a_(r.vector("k_a", c.keys())),
        r_k_(r.vector(to_floats(r.tensor("r_k", {c.heads, c.head_dim})))),
        norm_(Norm<Exec>::layer(r, "g_norm", c.values(), static_cast<float>(c.head_dim) * c.norm_eps)) {
    if (!c.first) v_low_ = low_rank(r, "v_lora", c.value_rank, c.values(), Activation::identity, true);
  }

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = InputTail<Exec>(1, c_.hidden);
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.heads, c_.head_dim, c_.value_dim);
    return state;
  }

  // x, out [T, hidden]; `out` may be `x`. Refused: a batch whose shared buffer is not [T, heads value_dim].
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    const Index tokens = x.shape[0], keys = c_.keys(), values = c_.values();
    expect_shape("Rwkv7", "the batch's shared buffer", batch.shared, {tokens, values});
    typename Exec::Scratch scratch(exec);
    const auto mixed = scratch.floats(kMixes, tokens, c_.hidden);
    const View<const float, 2> mu(mu_.data(), {kMixes, c_.hidden});
    shift_tokens(x, constant_mix(mu, tokens), mixed, batch, &LayerState<Exec>::inputs, exec);

    const auto r = scratch.floats(tokens, keys), w = scratch.floats(tokens, keys),
               k = scratch.floats(tokens, keys), eta = scratch.floats(tokens, keys),
               a = scratch.floats(tokens, keys), b = scratch.floats(tokens, keys);
    const auto v = scratch.floats(tokens, values), gate = scratch.floats(tokens, values),
               o = scratch.floats(tokens, values);
    r_(mixed[0], r, batch.phase, exec);
    w_low_(mixed[1], w, batch.phase, exec);
    k_(mixed[2], k, batch.phase, exec);
    v_(mixed[3], v, batch.phase, exec);
    a_low_(mixed[4], eta, batch.phase, exec);
    if (c_.first) {
      Backend<Exec>::copy(v.split(1, values), batch.shared.split(1, values), exec);
    } else {
      v_low_(mixed[3], gate, batch.phase, exec);
      rwkv7_values(Rwkv7Values{v, batch.shared, gate, v}, exec);
    }
    g_low_(mixed[5], gate, batch.phase, exec);
    DecayGate decay{w, {}, {}, w, DecayFormula::bounded};
    decay.bound = kRwkv7Bound;
    decay_gate(decay, exec);

    const auto by_head = [&](View<float, 2> y) { return y.split(1, c_.head_dim); };
    const auto of_value = [&](View<float, 2> y) { return y.split(1, c_.value_dim); };
    const auto parameter = [&](const typename Backend<Exec>::Vector& p) {
      return View<const float, 2>(p.data(), {c_.heads, c_.head_dim});
    };
    rwkv7_keys(Rwkv7Keys{by_head(k), by_head(eta), parameter(k_k_), parameter(k_a_), by_head(k), by_head(a),
                         by_head(b), c_.key_eps},
               exec);
    const RecurrentStates<Exec> states(batch, exec);
    typename Backend<Exec>::LinearRecurrence args{by_head(r), by_head(k), of_value(v)};
    args.out = of_value(o), args.offsets = batch.offsets, args.states = states;
    args.gk = by_head(w), args.a = by_head(a), args.b = by_head(b);
    rwkv7(args, exec);
    norm_(of_value(o), of_value(o), exec);
    rwkv7_output(Rwkv7Output{of_value(o), by_head(r), by_head(k), parameter(r_k_), of_value(v),
                             of_value(gate), of_value(o)},
                 exec);
    o_(o, out, batch.phase, exec);
  }

 private:
  static constexpr Index kMixes = 6;

  LowRankLinear<Exec> low_rank(const ParameterReader<Exec>& r, const std::string& name, Index rank, Index out,
                               Activation activation, bool biased) const {
    return {r, name + ".lora.0", name + ".lora.2", c_.hidden, rank, out, biased, activation};
  }
  // [6, hidden]
  static Tensor<float, 1> read_mu(const ParameterReader<Exec>& r, Index hidden) {
    if (r.contains("x_x") && !r.contains("x_r")) return to_floats(r.tensor("x_x", {kMixes, hidden}));
    std::vector<Parameter> parts;
    for (const char* name : {"x_r", "x_w", "x_k", "x_v", "x_a", "x_g"})
      parts.push_back(r.tensor(name, {1, 1, hidden}));
    return joined(parts);
  }

  Rwkv7Config c_;
  Linear<Exec> r_, k_, v_, o_;
  LowRankLinear<Exec> w_low_, a_low_, g_low_, v_low_;
  typename Backend<Exec>::Vector mu_, k_k_, k_a_, r_k_;
  Norm<Exec> norm_;
};

}  // namespace v0
}  // namespace ashlar
