// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/sequence_batch.hpp"
#include "ashlar/ops/short_conv.hpp"

namespace ashlar {
inline namespace v0 {

// The short causal depthwise convolution of linear-attention layers with its weights: out =
// activation(conv(x) + bias).
template <class Exec>
class ShortConvolution {
 public:
  using Vector = typename Backend<Exec>::Vector;

  ShortConvolution() = default;
  // weight [channels, width], bias [channels] or empty. Several convolutions of one layer keep their inputs
  // one behind another in its LayerState::inputs: `before` channels of others come first.
  ShortConvolution(Vector weight, Index channels, Index width, Activation activation = Activation::silu,
                   Vector bias = {}, Index before = 0)
      : weight_(std::move(weight)),
        bias_(std::move(bias)),
        channels_(channels),
        width_(width),
        before_(before),
        activation_(activation) {}

  explicit operator bool() const { return static_cast<bool>(weight_); }
  Index channels() const { return channels_; }
  // The last inputs of one sequence, LayerState::inputs.
  typename Backend<Exec>::template Array<float, 2> new_inputs() const {
    return typename Backend<Exec>::template Array<float, 2>({width_ - 1, channels_});
  }

  // x, out [T, channels], apart from each other.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const {
    typename Backend<Exec>::HostScratch scratch(exec);
    const std::size_t n = batch.states.size();
    const auto tails = scratch.template get<float*>(n);
    for (std::size_t i = 0; i < n; ++i) tails(i) = batch.states[i]->inputs.data() + (width_ - 1) * before_;
    short_conv(ShortConv{x,
                         {weight_.data(), {channels_, width_}},
                         bias_.view(),
                         out,
                         activation_,
                         batch.offsets,
                         {tails.data, n}},
               exec);
  }

 private:
  Vector weight_, bias_;
  Index channels_ = 0, width_ = 0, before_ = 0;
  Activation activation_ = Activation::silu;
};

// A short convolution's width and bias, where a layer has one.
struct ConvConfig {
  Index width = 0;      // 0: no convolution
  bool biased = false;  // required; else taken when it is there
};

// A projection with a short convolution of its own behind it: out = activation(conv(W x)), or activation(W x)
// where the layer has no convolutions. Reads <name>_proj.weight [out, in], <name>_conv1d.weight [out, 1, W]
// and <name>_conv1d.bias [out].
template <class Exec>
class ConvolvedLinear {
 public:
  ConvolvedLinear() = default;
  // `before`: of the channels of the layer's other convolutions, see ShortConvolution.
  ConvolvedLinear(const ParameterReader<Exec>& r, const std::string& name, Index in, Index out,
                  const ConvConfig& conv, Activation activation, Index before = 0)
      : linear_(r, name + "_proj", in, out), channels_(out), activation_(activation) {
    if (conv.width == 0) return;
    const Names weight = name + "_conv1d.weight", bias = name + "_conv1d.bias";
    conv_ = ShortConvolution<Exec>(r.vector(to_floats(r.tensor(weight, {out, 1, conv.width}))), out,
                                   conv.width, activation,
                                   conv.biased || r.contains(bias) ? r.vector(bias, out) : Vector(), before);
  }

  Index channels() const { return channels_; }
  // x [T, in], out [T, out]
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const {
    if (!conv_) {
      linear_(x, out, batch.phase, exec);
      if (activation_ != Activation::identity) activate(Activate{out, {}, out, activation_}, exec);
      return;
    }
    typename Exec::Scratch scratch(exec);
    const auto projected = scratch.floats(x.shape[0], channels_);
    linear_(x, projected, batch.phase, exec);
    conv_(projected, out, batch, exec);
  }

 private:
  using Vector = typename Backend<Exec>::Vector;

  Linear<Exec> linear_;
  ShortConvolution<Exec> conv_;
  Index channels_ = 0;
  Activation activation_ = Activation::identity;
};

// LayerState::inputs for convolutions of this many channels together; empty without convolutions.
template <class Exec>
typename Backend<Exec>::template Array<float, 2> new_conv_inputs(const ConvConfig& conv, Index channels) {
  using Array = typename Backend<Exec>::template Array<float, 2>;
  return conv.width > 1 ? Array({conv.width - 1, channels}) : Array();
}

}  // namespace v0
}  // namespace ashlar
