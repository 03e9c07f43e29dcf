// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/pixel_linear.hpp"

namespace ashlar {
inline namespace v0 {

// The two-layer MLP at each pixel of an image, with what follows it in the same pass:
//   out = down(activation(up x)) + residual
template <class Exec>
class PixelMlp {
 public:
  PixelMlp(const ParameterReader<Exec>& r, const Names& up, const Names& down, Index dim, Index hidden,
           Activation activation, bool biased)
      : up_(r, up, dim, hidden, biased, activation), down_(r, down, hidden, dim, biased), hidden_(hidden) {}

  // x, out, residual [N, H, W, C]; `out` may be `x` or `residual`.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec,
                  View<const float, 4> residual = {}) const {
    typename Exec::Scratch scratch(exec);
    const auto inner = scratch.floats(x.shape[0], x.shape[1], x.shape[2], hidden_);
    up_(x, inner, exec);
    down_(inner, out, exec, residual);
  }

 private:
  PixelLinear<Exec> up_, down_;
  Index hidden_;
};

}  // namespace v0
}  // namespace ashlar
