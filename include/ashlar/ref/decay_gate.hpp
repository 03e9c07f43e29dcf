// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>

#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ref/activation.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void decay_gate(const DecayGateArgs<T>& a) {
  for (Index t = 0; t < a.x.shape[0]; ++t)
    for (Index h = 0; h < a.x.shape[1]; ++h) {
      const T x = a.x(t, h) + (a.dt_bias ? a.dt_bias(h) : T(0));
      a.out(t, h) = -std::exp(a.a_log(h)) * activation(Activation::softplus, x);
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
