// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/parameter_reader.hpp"

namespace ashlar {
inline namespace v0 {

// out = x W^T + b. Reads `<name>.weight` [out, in], and `<name>.bias` [out], which is required with `biased` and
// otherwise taken when it is there.
template <class Exec>
class Linear {
 public:
  Linear() = default;
  Linear(const ParameterReader<Exec>& r, std::string_view name, Index in, Index out, bool biased = false)
      : weight_(r.matrix(concat(name, ".weight"), out, in)) {
    if (const std::string bias = concat(name, ".bias"); biased || r.contains(bias)) bias_ = r.vector(bias, out);
  }
  // With the weight's whole names.
  Linear(const ParameterReader<Exec>& r, const Names& weight, Index in, Index out)
      : weight_(r.matrix(weight, out, in)) {}

  // x [T, in], out [T, out]
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    dense(typename Backend<Exec>::Dense{x, weight_, bias_.view(), out, phase}, exec);
  }

 private:
  typename Backend<Exec>::Matrix weight_;
  typename Backend<Exec>::Vector bias_;
};

}  // namespace v0
}  // namespace ashlar
