// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/ops/pool2d.hpp"
#include "ashlar/ops/scale_channels.hpp"

namespace ashlar {
inline namespace v0 {

// Squeeze-excitation (Hu et al., 2018), the channel attention of image restoration (RCAN; Zhang et al.,
// 2018):
//   out = x * gate(W2 activation(W1 mean(x) + b1) + b2),  the mean over an image's pixels.
// Reads the two layers, [reduced, channels] and [channels, reduced] with any trailing extents of 1, and their
// biases.
template <class Exec>
class SqueezeExcite {
 public:
  SqueezeExcite() = default;
  SqueezeExcite(const ParameterReader<Exec>& r, const Names& first, const Names& second, Index channels,
                Index reduced, Activation activation = Activation::relu,
                Activation gate = Activation::sigmoid)
      : first_(layer(r, first, channels, reduced)),
        second_(layer(r, second, reduced, channels)),
        channels_(channels),
        reduced_(reduced),
        activation_(activation),
        gate_(gate) {}

  // x [N, H, W, C], gate [N, C]
  void gate(View<const float, 4> x, View<float, 2> gate, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const Index images = x.shape[0];
    const auto mean = scratch.floats(images, 1, 1, channels_);
    const auto inner = scratch.floats(images, reduced_);
    adaptive_pool2d(AdaptivePool2d{x, mean}, exec);
    first_({mean.data, {images, channels_}}, inner, Phase::decode, exec);
    activate(Activate{inner, {}, inner, activation_}, exec);
    second_(inner, gate, Phase::decode, exec);
    activate(Activate{gate, {}, gate, gate_}, exec);
  }
  // out = factor * x * gate(x) + add; `out` may be `x` or `add`.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec, float factor = 1,
                  View<const float, 4> add = {}) const {
    typename Exec::Scratch scratch(exec);
    const auto gates = scratch.floats(x.shape[0], channels_);
    gate(x, gates, exec);
    scale_channels(ScaleChannels{x, gates, out, factor, add}, exec);
  }

 private:
  static Linear<Exec> layer(const ParameterReader<Exec>& r, const Names& names, Index in, Index out) {
    return {r, r.flat(names.with(".weight"), in * out), in, out, r.vector(names.with(".bias"), out)};
  }

  Linear<Exec> first_, second_;
  Index channels_ = 0, reduced_ = 0;
  Activation activation_ = Activation::relu, gate_ = Activation::sigmoid;
};

}  // namespace v0
}  // namespace ashlar
