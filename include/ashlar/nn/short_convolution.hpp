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
  // side by side in its LayerState::inputs: `before` channels of others come first.
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
  InputTail<Exec> new_inputs() const { return {width_ - 1, channels_}; }

  // x, out [T, channels], apart from each other.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const {
    if (width_ == 1) return run(x, out, batch.offsets, {}, 0, exec);
    const InputTails<Exec> tails(batch, &LayerState<Exec>::inputs, x, exec, before_);
    run(x, out, batch.offsets, tails, tails.stride(), exec);
  }

 private:
  void run(View<const float, 2> x, View<float, 2> out, const Offsets& offsets, std::span<float* const> tails,
           Index stride, Exec& exec) const {
    short_conv(
        ShortConv{
            x, {weight_.data(), {channels_, width_}}, bias_.view(), out, activation_, offsets, tails, stride},
        exec);
  }

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
InputTail<Exec> new_conv_inputs(const ConvConfig& conv, Index channels) {
  return conv.width > 1 ? InputTail<Exec>(conv.width - 1, channels) : InputTail<Exec>();
}

}  // namespace v0
}  // namespace ashlar
