// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/conv2d.hpp"

namespace ashlar {
inline namespace v0 {

// What closes a group of layers before its residual connection, as "resi_connection" calls it: a convolution
// 3 x 3; three with a bottleneck, 3 x 3 (C to C / 4), 1 x 1, 3 x 3 (to C), and leaky ReLUs of slope 0.2
// between; or nothing.
enum class ResidualConvKind : std::uint8_t { one, three, identity };

// out = conv(x) + residual. Reads <name>.{weight, bias}, or <name>.{0, 2, 4}.{weight, bias}.
template <class Exec>
class ResidualConv {
 public:
  ResidualConv() = default;
  ResidualConv(const ParameterReader<Exec>& r, const Names& names, Index channels, ResidualConvKind kind)
      : inner_(kind == ResidualConvKind::three ? channels / 4 : 0) {
    if (kind == ResidualConvKind::one) last_ = Conv2d<Exec>(r, names, channels, channels);
    if (kind != ResidualConvKind::three) return;
    const auto leaky = [](const Conv2dOptions& o) { return o.with(Activation::leaky_relu, 0.2f); };
    first_ = Conv2d<Exec>(r, names.with(".0"), channels, inner_, leaky(Conv2dOptions::same(3)));
    middle_ = Conv2d<Exec>(r, names.with(".2"), inner_, inner_, leaky(Conv2dOptions::same(1)));
    last_ = Conv2d<Exec>(r, names.with(".4"), inner_, channels);
  }

  // False: out = x + residual.
  explicit operator bool() const { return static_cast<bool>(last_); }
  // Scratch memory, for each pixel.
  Index floats_per_pixel() const { return 2 * inner_; }
  // x, residual, out [N, H, W, C]; `out` may be `residual`, and must not overlap `x` otherwise.
  void operator()(View<const float, 4> x, View<const float, 4> residual, View<float, 4> out,
                  Exec& exec) const {
    if (!last_) refuse("ResidualConv", "there is no convolution to run");
    if (!first_) return last_(x, out, exec, residual);
    typename Exec::Scratch scratch(exec);
    const auto a = scratch.floats(x.shape[0], x.shape[1], x.shape[2], inner_),
               b = scratch.floats(x.shape[0], x.shape[1], x.shape[2], inner_);
    first_(x, a, exec);
    middle_(a, b, exec);
    last_(b, out, exec, residual);
  }

 private:
  Index inner_ = 0;
  Conv2d<Exec> first_, middle_, last_;
};

}  // namespace v0
}  // namespace ashlar
