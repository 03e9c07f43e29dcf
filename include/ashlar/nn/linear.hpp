// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/parameter_reader.hpp"

namespace ashlar {
inline namespace v0 {

// out = x W^T + b. Reads <name>.weight [out, in], and <name>.bias [out], which is required with `biased` and
// otherwise taken when it is there.
template <class Exec>
class Linear {
 public:
  Linear() = default;
  Linear(const ParameterReader<Exec>& r, const Names& names, Index in, Index out, bool biased = false)
      : weight_(r.matrix(names.with(".weight"), out, in)) {
    if (const Names bias = names.with(".bias"); biased || r.contains(bias)) bias_ = r.vector(bias, out);
  }

  // The same from a part of a tensor.
  Linear(const ParameterReader<Exec>& r, const Parameter& weight, Index in, Index out,
         typename Backend<Exec>::Vector bias = {})
      : weight_(r.matrix(weight, out, in)), bias_(std::move(bias)) {}

  explicit operator bool() const { return static_cast<bool>(weight_); }
  // x [T, in], out [T, out]
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    dense(layer(x, out, phase), exec);
  }
  // The same as the last thing that a module does, so that a residual sum that waits for `out` may join it.
  void finish(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    auto last = layer(x, out, phase);
    last.last = true;
    dense(last, exec);
  }
  // The same for dense() to run with others in one go, such as all projections of one x.
  typename Backend<Exec>::Dense layer(View<const float, 2> x, View<float, 2> out, Phase phase) const {
    return {x, weight_, bias_.view(), out, phase};
  }
  // For gated_dense(), with this layer as the gate of `up`.
  typename Backend<Exec>::GatedDense gated(const Linear& up, View<const float, 2> x, View<float, 2> out,
                                           Activation activation, Phase phase) const {
    return {x, weight_, up.weight_, bias_.view(), up.bias_.view(), out, activation, phase};
  }

 private:
  typename Backend<Exec>::Matrix weight_;
  typename Backend<Exec>::Vector bias_;
};

}  // namespace v0
}  // namespace ashlar
