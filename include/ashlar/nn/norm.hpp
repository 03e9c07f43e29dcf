// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/parameter_reader.hpp"
#include "ashlar/ops/norm.hpp"

namespace ashlar {
inline namespace v0 {

// A root-mean-square norm with its weight [D] ([H D] with heads of their own) or without one, or a layer norm
// with its weight and bias.
template <class Exec>
class Norm {
 public:
  Norm() = default;
  Norm(const ParameterReader<Exec>& r, const Names& names, Index dim, float eps, float weight_offset = 0)
      : weight_(r.vector(names, dim)), eps_(eps), weight_offset_(weight_offset), present_(true) {}
  // <name>.weight, and <name>.bias where it is `biased`.
  static Norm layer(const ParameterReader<Exec>& r, const Names& names, Index dim, float eps,
                    bool biased = true) {
    Norm n(r, names.with(".weight"), dim, eps);
    if (biased) n.bias_ = r.vector(names.with(".bias"), dim);
    n.centred_ = true;
    return n;
  }
  // Without a weight.
  explicit Norm(float eps) : eps_(eps), present_(true) {}

  explicit operator bool() const { return present_; }
  // Over all of a token, x [T, D]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, Exec& exec) const {
    (*this)(x.split(1, x.shape[1]), out.split(1, out.shape[1]), exec);
  }
  // Over each head, x [T, H, D], with an optional gate: out = norm(x) activation(gate).
  void operator()(View<const float, 3> x, View<float, 3> out, Exec& exec, View<const float, 3> gate = {},
                  Activation activation = Activation::silu) const {
    if (centred_)
      layer_norm(LayerNorm{x, weight_.view(), bias_.view(), out, eps_, gate, activation}, exec);
    else
      rms_norm(RmsNorm{x, weight_.view(), out, eps_, weight_offset_, gate, activation}, exec);
  }

 private:
  typename Backend<Exec>::Vector weight_, bias_;
  float eps_ = 1e-6f, weight_offset_ = 0;
  bool present_ = false, centred_ = false;
};

}  // namespace v0
}  // namespace ashlar
