// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

// A projection through a narrow waist, as decays and gates have it: out = W_2 activation(W_1 x) + b. Reads
// <down>.weight [rank, in] and <up>.weight [out, rank], with their biases as Linear does.
template <class Exec>
class LowRankLinear {
 public:
  LowRankLinear() = default;
  LowRankLinear(const ParameterReader<Exec>& r, const Names& down, const Names& up, Index in, Index rank,
                Index out, bool biased = false, Activation activation = Activation::identity)
      : down_(r, down, in, rank), up_(r, up, rank, out, biased), rank_(rank), activation_(activation) {}

  explicit operator bool() const { return static_cast<bool>(up_); }
  // x [T, in], out [T, out]
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto narrow = scratch.floats(x.shape[0], rank_);
    down_(x, narrow, phase, exec);
    if (activation_ != Activation::identity) activate(Activate{narrow, {}, narrow, activation_}, exec);
    up_(narrow, out, phase, exec);
  }

 private:
  Linear<Exec> down_, up_;
  Index rank_ = 0;
  Activation activation_ = Activation::identity;
};

}  // namespace v0
}  // namespace ashlar
