// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/gated_output.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/short_convolution.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/gated_scan.hpp"

namespace ashlar {
inline namespace v0 {

struct HgrnConfig {
  Index hidden = 0, width = 0;  // channels of the recurrence
  ConvConfig conv;              // without an activation
  bool norm_weight = true;
  float norm_eps = 1e-5f;
};

// HGRN (Qin, Yang and Zhong, 2023): a gated recurrence of each channel, without a matrix state:
//   decay = ln(lb + (1 - lb) sigmoid(W_f x));  u = silu(W_i x) (1 - exp(decay));  h_t = exp(decay_t) h_{t-1}
//   + u_t;  out = W_o (norm(h) silu(W_g x))
// The lower bounds lb [width] are the model's, one row a layer; none: 0. Convolutions, where there are some,
// come behind W_i and W_f. Keys of flash-linear-attention: {i,f,g,o}_proj, {i,f}_conv1d, g_norm.
template <class Exec>
class Hgrn final : public Mixer<Exec> {
 public:
  using Vector = typename Backend<Exec>::Vector;

  Hgrn(const ParameterReader<Exec>& r, const HgrnConfig& c, Vector lower_bound = {})
      : c_(c),
        i_(r, "i", c.hidden, c.width, c.conv, Activation::identity),
        f_(r, "f", c.hidden, c.width, c.conv, Activation::identity, c.width),
        lower_bound_(std::move(lower_bound)),
        output_({r, "o_proj", c.width, c.hidden},
                c.norm_weight ? Norm<Exec>(r, "g_norm.weight", c.width, c.norm_eps) : Norm<Exec>(c.norm_eps),
                c.width, {r, "g_proj", c.hidden, c.width}) {}

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = new_conv_inputs<Exec>(c_.conv, 2 * c_.width);
    state.recurrent = typename Backend<Exec>::RecurrentState(1, 1, c_.width);
    return state;
  }

  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto h = scratch.floats(tokens, c_.width), decay = scratch.floats(tokens, c_.width),
               share = scratch.floats(tokens, c_.width);
    const RecurrentStates<Exec> states(batch, exec);
    i_(x, h, batch, exec);
    f_(x, decay, batch, exec);
    DecayGate formula{decay, {}, {}, decay, DecayFormula::log_sigmoid};
    if (lower_bound_)
      formula.formula = DecayFormula::lower_bounded, formula.lower_bound = lower_bound_.view();
    formula.complement = share;
    decay_gate(formula, exec);
    activate(Activate{h, share, h, Activation::silu}, exec);
    hgrn(GatedScanArgs<float, typename Backend<Exec>::RecurrentState>{h, decay, h, batch.offsets, states},
         exec);
    output_(x, h, out, batch.phase, exec);
  }

 private:
  HgrnConfig c_;
  ConvolvedLinear<Exec> i_, f_;
  Vector lower_bound_;
  GatedOutput<Exec> output_;
};

}  // namespace v0
}  // namespace ashlar
