// SPDX-License-Identifier: Apache-2.0
#pragma once
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
  // weight [channels, width], bias [channels] or empty
  ShortConvolution(Vector weight, Index channels, Index width, Activation activation = Activation::silu,
                   Vector bias = {})
      : weight_(std::move(weight)),
        bias_(std::move(bias)),
        channels_(channels),
        width_(width),
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
    for (std::size_t i = 0; i < n; ++i) tails(i) = batch.states[i]->inputs.data();
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
  Index channels_ = 0, width_ = 0;
  Activation activation_ = Activation::silu;
};

}  // namespace v0
}  // namespace ashlar
