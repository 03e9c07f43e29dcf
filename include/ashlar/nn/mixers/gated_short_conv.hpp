// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/short_convolution.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

// The gated short convolution of LFM2 (Liquid AI, 2025):
//   b, c, u = thirds of W_in x;  out = W_out (c * conv(b * u))
// with a causal depthwise convolution of W taps. Keys: in_proj, conv.weight [hidden, 1, W], out_proj, each
// with a bias where there is one, or with `biased` always.
template <class Exec>
class GatedShortConv final : public Mixer<Exec> {
 public:
  GatedShortConv(const ParameterReader<Exec>& r, Index hidden, Index width, bool biased)
      : hidden_(hidden),
        in_(r, "in_proj", hidden, 3 * hidden, biased),
        out_(r, "out_proj", hidden, hidden, biased) {
    typename Backend<Exec>::Vector bias;
    if (biased || r.contains("conv.bias")) bias = r.vector("conv.bias", hidden);
    conv_ = ShortConvolution<Exec>(r.vector(to_floats(r.tensor("conv.weight", {hidden, 1, width}))), hidden,
                                   width, Activation::identity, std::move(bias));
  }

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = conv_.new_inputs();
    return state;
  }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const auto projected = scratch.floats(x.shape[0], 3 * hidden_),
               mixed = scratch.floats(x.shape[0], hidden_);
    const auto b = projected.slice(1, 0, hidden_), c = projected.slice(1, hidden_, 2 * hidden_),
               u = projected.slice(1, 2 * hidden_, 3 * hidden_);
    in_(x, projected, batch.phase, exec);
    activate(Activate{b, u, b, Activation::identity}, exec);
    conv_(b, mixed, batch, exec);
    activate(Activate{mixed, c, mixed, Activation::identity}, exec);
    out_(mixed, out, batch.phase, exec);
  }

 private:
  Index hidden_;
  Linear<Exec> in_, out_;
  ShortConvolution<Exec> conv_;
};

}  // namespace v0
}  // namespace ashlar
