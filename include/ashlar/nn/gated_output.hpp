// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/norm.hpp"

namespace ashlar {
inline namespace v0 {

// How a linear recurrence's output leaves its layer: out = W_o (norm(o) activation(gate)), the norm over each
// head, or over all of them together. The gate is W_g x, or the caller's, or there is none.
template <class Exec>
class GatedOutput {
 public:
  GatedOutput() = default;
  // `head`: channels that one norm goes over; no norm: o stays as it is.
  GatedOutput(Linear<Exec> o, Norm<Exec> norm, Index head, Linear<Exec> gate = {},
              Activation activation = Activation::silu)
      : o_(std::move(o)),
        gate_(std::move(gate)),
        norm_(std::move(norm)),
        head_(head),
        activation_(activation) {}

  // x, out [T, hidden]; o [T, H V], what the recurrence gave, is overwritten; gate [T, H V] or empty. `out`
  // may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> o, View<float, 2> out, Phase phase, Exec& exec,
                  View<const float, 2> gate = {}) const {
    typename Exec::Scratch scratch(exec);
    if (gate_) {
      const auto own = scratch.floats(o.shape[0], o.shape[1]);
      gate_(x, own, phase, exec);
      gate = own;
    }
    if (norm_) {
      const auto heads = o.split(1, head_);
      norm_(heads, heads, exec, gate ? gate.split(1, head_) : View<const float, 3>(), activation_);
    }
    o_(o, out, phase, exec);
  }

 private:
  Linear<Exec> o_, gate_;
  Norm<Exec> norm_;
  Index head_ = 0;
  Activation activation_ = Activation::silu;
};

}  // namespace v0
}  // namespace ashlar
