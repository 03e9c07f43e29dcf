// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/feature_map.hpp"

namespace ashlar {
inline namespace v0 {

// What linear attention makes of a head's queries or keys x [D]:
//   identity x | elu1 elu(x) + 1 (Katharopoulos et al., 2020) | relu | elementwise_product (W_1 x + b_1) (W_2
//   x
//   + b_2) | t2r relu(W x) (Kasai et al., 2021) | hedgehog softmax([2 y, -2 y]), y = W x + b (Zhang et al.,
//   2024) | dpfp, parameter-free, of degree 4 (Schlag et al., 2021)
enum class FeatureMapKind : std::uint8_t { identity, elu1, relu, elementwise_product, t2r, hedgehog, dpfp };

// Reads <name>.layer, or <name>.layer1 and <name>.layer2.
template <class Exec>
class FeatureMap {
 public:
  FeatureMap(const ParameterReader<Exec>& r, const std::string& name, FeatureMapKind kind, Index dim)
      : kind_(kind), dim_(dim) {
    if (kind == FeatureMapKind::elementwise_product) {
      first_ = Linear<Exec>(r, name + ".layer1", dim, dim, true);
      second_ = Linear<Exec>(r, name + ".layer2", dim, dim, true);
    } else if (kind == FeatureMapKind::t2r || kind == FeatureMapKind::hedgehog) {
      first_ = Linear<Exec>(r, name + ".layer", dim, dim, kind == FeatureMapKind::hedgehog);
    }
  }

  Index features() const {
    return kind_ == FeatureMapKind::hedgehog ? 2 * dim_ : kind_ == FeatureMapKind::dpfp ? 8 * dim_ : dim_;
  }
  // x [N, D], a head a row; out [N, features], apart from x.
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto heads = x.split(1, dim_);
    switch (kind_) {
      case FeatureMapKind::identity:
      case FeatureMapKind::elu1:
      case FeatureMapKind::relu: activate(Activate{x, {}, out, elementwise()}, exec); break;
      case FeatureMapKind::t2r:
        first_(x, out, phase, exec);
        activate(Activate{out, {}, out, Activation::relu}, exec);
        break;
      case FeatureMapKind::elementwise_product: {
        const auto factor = scratch.floats(x.shape[0], dim_);
        first_(x, out, phase, exec);
        second_(x, factor, phase, exec);
        activate(Activate{out, factor, out, Activation::identity}, exec);
        break;
      }
      case FeatureMapKind::hedgehog: {
        const auto y = scratch.floats(x.shape[0], dim_);
        first_(x, y, phase, exec);
        hedgehog(Hedgehog{y.split(1, dim_), out.split(1, features())}, exec);
        break;
      }
      case FeatureMapKind::dpfp: dpfp(Dpfp{heads, out.split(1, features())}, exec); break;
    }
  }

 private:
  Activation elementwise() const {
    return kind_ == FeatureMapKind::elu1   ? Activation::elu1
           : kind_ == FeatureMapKind::relu ? Activation::relu
                                           : Activation::identity;
  }

  FeatureMapKind kind_;
  Index dim_;
  Linear<Exec> first_, second_;
};

}  // namespace v0
}  // namespace ashlar
