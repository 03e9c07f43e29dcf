// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

// A projection through a narrow middle: out = W_up activation(W_down x) + b, as gates and decays of linear
// attention have it. Reads <down>.weight [rank, in], <up>.weight [out, rank] and <up>.bias [out].
template <class Exec>
class LowRank {
 public:
  LowRank() = default;
  LowRank(const ParameterReader<Exec>& r, const Names& down, const Names& up, Index in, Index rank, Index out,
          Activation activation = Activation::identity, bool biased = false)
      : down_(r, down, in, rank), up_(r, up, rank, out, biased), rank_(rank), activation_(activation) {}

  // x [T, in], out [T, out]
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto middle = scratch.floats(x.shape[0], rank_);
    down_(x, middle, phase, exec);
    if (activation_ != Activation::identity) activate(Activate{middle, {}, middle, activation_}, exec);
    up_(middle, out, phase, exec);
  }

 private:
  Linear<Exec> down_, up_;
  Index rank_ = 0;
  Activation activation_ = Activation::identity;
};

}  // namespace v0
}  // namespace ashlar
