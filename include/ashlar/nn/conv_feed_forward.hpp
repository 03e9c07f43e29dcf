// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/conv2d.hpp"
#include "ashlar/nn/tokens.hpp"

namespace ashlar {
inline namespace v0 {

enum class ConvFeedForwardKind : std::uint8_t {
  gated,  // GDFN (Restormer: Zamir et al., 2022): (a, b) = depthwise(project_in(x)), 3 x 3;
          // out = project_out(gelu(a) * b), without biases
  plain   // out = body.2(gelu(body.0(x))), with biases
};

// The feed-forward part of a block of convolutions; those that are not depthwise are 1 x 1.
template <class Exec>
class ConvFeedForward {
 public:
  ConvFeedForward(const ParameterReader<Exec>& r, Index dim, Index hidden, ConvFeedForwardKind kind)
      : hidden_(hidden), gated_(kind == ConvFeedForwardKind::gated) {
    const Conv2dOptions point = Conv2dOptions::same(1);
    if (gated_) {
      in_ = Conv2d<Exec>(r, "project_in", dim, 2 * hidden, point.unbiased());
      spread_ = Conv2d<Exec>(r, "dwconv", 2 * hidden, 2 * hidden,
                             Conv2dOptions::same(3).grouped(2 * hidden).unbiased());
      out_ = Conv2d<Exec>(r, "project_out", hidden, dim, point.unbiased());
    } else {
      in_ = Conv2d<Exec>(r, "body.0", dim, hidden, point.with(Activation::gelu));
      out_ = Conv2d<Exec>(r, "body.2", hidden, dim, point);
    }
  }

  Index floats_per_pixel() const { return (gated_ ? 4 : 1) * hidden_; }
  // x, out, residual [N, H, W, C]; the residual is added, and `out` may be `x` or it.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec,
                  View<const float, 4> residual = {}) const {
    typename Exec::Scratch scratch(exec);
    const auto map = [&](Index depth) { return scratch.floats(x.shape[0], x.shape[1], x.shape[2], depth); };
    const View<float, 4> inner = map(gated_ ? 2 * hidden_ : hidden_);
    in_(x, inner, exec);
    if (!gated_) return out_(inner, out, exec, residual);
    const View<float, 4> both = map(2 * hidden_), a = both.slice(3, 0, hidden_);
    spread_(inner, both, exec);
    const View<const float, 2> b = as_tokens(both.slice(3, hidden_, 2 * hidden_));
    activate(Activate{as_tokens(a), b, as_tokens(a), Activation::gelu}, exec);
    out_(a, out, exec, residual);
  }

 private:
  Index hidden_;
  bool gated_;
  Conv2d<Exec> in_, spread_, out_;
};

}  // namespace v0
}  // namespace ashlar
