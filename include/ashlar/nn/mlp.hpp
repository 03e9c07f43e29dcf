// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

// The two-layer MLP: out = down(activation(up x)).
template <class Exec>
class Mlp {
 public:
  Mlp(const ParameterReader<Exec>& r, const Names& up, const Names& down, Index hidden, Index width,
      Activation activation, bool biased)
      : up_(r, up, hidden, width, biased),
        down_(r, down, width, hidden, biased),
        width_(width),
        activation_(activation) {}

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto inner = scratch.floats(x.shape[0], width_);
    up_(x, inner, phase, exec);
    activate(Activate{inner, {}, inner, activation_}, exec);
    down_(inner, out, phase, exec);
  }

 private:
  Linear<Exec> up_, down_;
  Index width_;
  Activation activation_;
};

// How a checkpoint calls the projections of a gated MLP.
struct GatedMlpNames {
  Names gate = "gate_proj", up = "up_proj", down = "down_proj";
};
inline const GatedMlpNames kNumberedMlpNames{"w1", "w3", "w2"};

// The gated MLP: out = down(activation(gate x) * up x) (Shazeer, 2020).
template <class Exec>
class GatedMlp {
 public:
  GatedMlp(const ParameterReader<Exec>& r, Index hidden, Index width, Activation activation,
           bool biased = false, const GatedMlpNames& names = {})
      : gate_(r, names.gate, hidden, width, biased),
        up_(r, names.up, hidden, width, biased),
        down_(r, names.down, width, hidden, biased),
        width_(width),
        activation_(activation) {}

  // x, out [T, hidden]
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto inner = scratch.floats(x.shape[0], width_);
    gated_dense(gate_.gated(up_, x, inner, activation_, phase), exec);
    down_.finish(inner, out, phase, exec);
  }

 private:
  Linear<Exec> gate_, up_, down_;
  Index width_;
  Activation activation_;
};

}  // namespace v0
}  // namespace ashlar
