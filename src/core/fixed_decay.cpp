// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ashlar/ops/decay_gate.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

template <class F>
Tensor<float, 1> of_each_head(std::string_view who, Index heads, F&& decay) {
  if (heads < 1) refuse(who, "heads is ", heads, ", expected 1 or more");
  Tensor<float, 1> g({heads});
  for (Index h = 0; h < heads; ++h) g.data()[h] = static_cast<float>(decay(static_cast<double>(h)));
  return g;
}

void check_layer(std::string_view who, Index layer, Index layers) {
  if (layer < 0 || layer >= layers) refuse(who, "layer is ", layer, ", expected 0 to ", layers - 1);
}

}  // namespace

Tensor<float, 1> retention_decay(Index heads) {
  return of_each_head("retention_decay", heads, [](double h) { return std::log1p(-std::exp2(-5 - h)); });
}

Tensor<float, 1> lightning_decay(Index heads, Index layer, Index layers) {
  check_layer("lightning_decay", layer, layers);
  const double depth = 1 - static_cast<double>(layer) / static_cast<double>(layers);
  return of_each_head("lightning_decay", heads,
                      [&](double h) { return -8 / static_cast<double>(heads) * depth * h; });
}

Tensor<float, 1> minimax_decay(Index heads, Index layer, Index layers) {
  check_layer("minimax_decay", layer, layers);
  const double depth = 1 - static_cast<double>(layer) / (static_cast<double>(layers) - 1 + 1e-5) + 1e-5;
  return of_each_head("minimax_decay", heads, [&](double h) {
    return -std::exp2(-8 * (h + 1) / static_cast<double>(heads)) * depth;
  });
}

}  // namespace v0
}  // namespace ashlar
