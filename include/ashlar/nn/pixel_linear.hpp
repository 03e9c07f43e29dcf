// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/parameter_reader.hpp"
#include "ashlar/ops/conv2d.hpp"

namespace ashlar {
inline namespace v0 {

// A linear layer at each pixel of an image, a convolution of 1 x 1, with what follows it in the same pass:
//   out = activation(x W^T + b) + residual
// Reads <name>.weight [out, in] and <name>.bias [out] as Linear does. Weights are kept in f32.
template <class Exec>
class PixelLinear {
 public:
  PixelLinear() = default;
  PixelLinear(const ParameterReader<Exec>& r, const Names& names, Index in, Index out, bool biased = false,
              Activation activation = Activation::identity)
      : PixelLinear(r, r.tensor(names.with(".weight"), {out, in}), in, out, {}, activation) {
    if (const Names bias = names.with(".bias"); biased || r.contains(bias)) bias_ = r.vector(bias, out);
  }
  // The same from a part of a tensor.
  PixelLinear(const ParameterReader<Exec>& r, Parameter weight, Index in, Index out,
              typename Backend<Exec>::Vector bias = {}, Activation activation = Activation::identity)
      : bias_(std::move(bias)), activation_(activation) {
    weight.shape = {out, in, 1, 1};
    weight_ = r.filters(weight, 1);
  }

  explicit operator bool() const { return static_cast<bool>(weight_); }
  // x [N, H, W, in], residual and out [N, H, W, out], pixels, rows and images with any steps; `out` may be
  // `residual`.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec,
                  View<const float, 4> residual = {}) const {
    conv2d(typename Backend<Exec>::Conv2d{.x = x,
                                          .weight = weight_,
                                          .bias = bias_.view(),
                                          .out = out,
                                          .activation = activation_,
                                          .residual = residual},
           exec);
  }

 private:
  typename Backend<Exec>::Filters weight_;
  typename Backend<Exec>::Vector bias_;
  Activation activation_ = Activation::identity;
};

}  // namespace v0
}  // namespace ashlar
