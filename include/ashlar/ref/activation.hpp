// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>

#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
T activation(Activation f, T x, T negative_slope = T(kNegativeSlope)) {
  switch (f) {
    case Activation::identity: return x;
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
    case Activation::relu: return x < 0 ? 0 : x;
    case Activation::relu2: return x < 0 ? 0 : x * x;
    case Activation::tanh: return std::tanh(x);
    case Activation::gelu: return x * std::erfc(-x / std::sqrt(T(2))) / 2;
    case Activation::gelu_tanh:  // (1 + tanh z) / 2 = 1 / (1 + e^-2z), which does not cancel
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(T(-1))) * (x + T(0.044715) * x * x * x)));
    case Activation::softplus: return x > 20 ? x : std::log1p(std::exp(x));
    case Activation::elu1: return x > 0 ? x + 1 : std::exp(x);
    case Activation::relu6: return std::clamp(x, T(0), T(6));
    case Activation::hardsigmoid: return std::clamp(x + 3, T(0), T(6)) / 6;
    case Activation::hardswish: return x * std::clamp(x + 3, T(0), T(6)) / 6;
    case Activation::leaky_relu: return x < 0 ? negative_slope * x : x;
  }
  return x;
}

template <class T>
void activate(const ActivateArgs<T>& a) {
  for (Index t = 0; t < a.x.shape[0]; ++t)
    for (Index i = 0; i < a.x.shape[1]; ++i) {
      const T y =
          a.scale * activation(a.activation, a.slope * std::min(a.x(t, i), a.limit), a.negative_slope);
      a.out(t, i) = y * (a.up ? std::clamp(a.up(t, i), -a.limit, a.limit) + a.up_offset : T(1));
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
