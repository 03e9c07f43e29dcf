// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <variant>

#include "ashlar/nn/moe.hpp"

namespace ashlar {
inline namespace v0 {

// A block's second part in models where some layers have a gated MLP and others a mixture of experts.
template <class Exec>
class FeedForward {
 public:
  FeedForward(GatedMlp<Exec> mlp) : part_(std::move(mlp)) {}
  FeedForward(MixtureOfExperts<Exec> experts) : part_(std::move(experts)) {}

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    std::visit([&](const auto& part) { part(x, out, phase, exec); }, part_);
  }

 private:
  std::variant<GatedMlp<Exec>, MixtureOfExperts<Exec>> part_;
};

}  // namespace v0
}  // namespace ashlar
