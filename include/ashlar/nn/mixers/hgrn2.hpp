// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/gated_output.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/short_convolution.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct Hgrn2Config {
  Index hidden = 0, heads = 0, key_dim = 0, value_dim = 0;
  ConvConfig conv;  // without an activation
  bool norm_weight = true;

  Index keys() const { return heads * key_dim; }
  Index values() const { return heads * value_dim; }
};

// HGRN2 (Qin et al., 2024): gated linear attention whose keys are tied to the decay,
//   q = silu(W_q x), v = W_i x;  decay = ln(lb + (1 - lb) sigmoid(W_f x));  k = 1 - exp(decay)
//   o = gla(q, k, v, decay);  out = W_o norm(o), one norm over all heads
// The lower bounds lb [H Dk] are the model's, one row a layer; none: 0. Convolutions, where there are some,
// come behind W_q, W_f and W_i. Keys of flash-linear-attention: {q,f,i,o}_proj, {q,f,i}_conv1d, g_norm.
template <class Exec>
class Hgrn2 final : public Mixer<Exec> {
 public:
  using Vector = typename Backend<Exec>::Vector;

  Hgrn2(const ParameterReader<Exec>& r, const Hgrn2Config& c, Vector lower_bound = {})
      : c_(c),
        q_(r, "q", c.hidden, c.keys(), c.conv, Activation::silu),
        f_(r, "f", c.hidden, c.keys(), c.conv, Activation::identity, c.keys()),
        i_(r, "i", c.hidden, c.values(), c.conv, Activation::identity, 2 * c.keys()),
        lower_bound_(std::move(lower_bound)),
        output_({r, "o_proj", c.values(), c.hidden},
                c.norm_weight ? Norm<Exec>(r, "g_norm.weight", c.values(), kEps) : Norm<Exec>(kEps),
                c.values()) {}

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = new_conv_inputs<Exec>(c_.conv, 2 * c_.keys() + c_.values());
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.heads, c_.key_dim, c_.value_dim);
    return state;
  }

  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto q = scratch.floats(tokens, c_.keys()), k = scratch.floats(tokens, c_.keys()),
               decay = scratch.floats(tokens, c_.keys());
    const auto v = scratch.floats(tokens, c_.values()), o = scratch.floats(tokens, c_.values());
    const RecurrentStates<Exec> states(batch, exec);
    q_(x, q, batch, exec);
    f_(x, decay, batch, exec);
    i_(x, v, batch, exec);
    DecayGate formula{decay, {}, {}, decay, DecayFormula::log_sigmoid};
    if (lower_bound_)
      formula.formula = DecayFormula::lower_bounded, formula.lower_bound = lower_bound_.view();
    formula.complement = k;
    decay_gate(formula, exec);

    typename Backend<Exec>::LinearRecurrence args{q.split(1, c_.key_dim), k.split(1, c_.key_dim),
                                                  v.split(1, c_.value_dim)};
    args.gk = decay.split(1, c_.key_dim), args.out = o.split(1, c_.value_dim);
    args.offsets = batch.offsets, args.states = states;
    hgrn2(args, exec);
    output_(x, o, out, batch.phase, exec);
  }

 private:
  static constexpr float kEps = 1e-5f;  // whatever the config says

  Hgrn2Config c_;
  ConvolvedLinear<Exec> q_, f_, i_;
  Vector lower_bound_;
  GatedOutput<Exec> output_;
};

}  // namespace v0
}  // namespace ashlar
