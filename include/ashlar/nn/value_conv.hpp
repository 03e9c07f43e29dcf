// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstring>
#include <memory>

#include "ashlar/nn/conv2d.hpp"

namespace ashlar {
inline namespace v0 {

// The local term of attention on images: a depthwise convolution of the values, 3 x 3 with zero padding,
// added to the attention's output before it is projected (RGT: Chen et al., 2024; LRGT: Yang et al., 2024;
// ResFormer: Tian et al., 2023), or to the values themselves. Reads <name>.weight [C, 1, 3, 3] and
// <name>.bias, or filters [head_dim, 1, 3, 3] which all heads share.
template <class Exec>
class ValueConv {
 public:
  ValueConv() = default;
  ValueConv(const ParameterReader<Exec>& r, const Names& names, Index channels, Index heads) {
    const Index filters = r.rows(names.with(".weight"), channels);
    if (filters != channels && filters * heads != channels)
      refuse("ValueConv", "there are ", filters, " filters for ", heads, " heads of ", channels,
             " channels in all, expected one a channel, or one a channel of a head");
    const Tensor<float, 1> weight = to_floats(r.tensor(names.with(".weight"), {filters, 1, 3, 3})),
                           bias = to_floats(r.tensor(names.with(".bias"), {filters}));
    auto all = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{channels * 9});
    Tensor<float, 1> biases({channels});
    for (Index c = 0; c < channels; ++c) {
      std::memcpy(all->data() + c * 9, weight.data() + c % filters * 9, 9 * sizeof(float));
      biases.data()[c] = bias.data()[c % filters];
    }
    weight_ = r.filters({all->data(), DType::f32, {channels, 1, 3, 3}, all}, channels);
    bias_ = r.vector(std::move(biases));
  }

  explicit operator bool() const { return static_cast<bool>(weight_); }
  // out += conv(v), both [N, H, W, C]; `out` must not overlap v.
  void operator()(View<const float, 4> v, View<float, 4> out, Exec& exec) const {
    conv2d(typename Backend<Exec>::Conv2d{.x = v,
                                          .weight = weight_,
                                          .bias = bias_.view(),
                                          .out = out,
                                          .steps = {{1, 1}, {1, 1}},
                                          .residual = out},
           exec);
  }

 private:
  typename Backend<Exec>::Filters weight_;
  typename Backend<Exec>::Vector bias_;
};

}  // namespace v0
}  // namespace ashlar
