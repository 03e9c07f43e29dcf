// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>

#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ref/activation.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// ln(lb + (1 - lb) sigmoid(x)): near 1 as ln(1 - (1 - lb) sigmoid(-x)), far from it as the logarithm of the
// sum lb + e^x over 1 + e^x.
template <class T>
T lower_bounded_decay(T x, T lb) {
  const T rest = (1 - lb) * activation(Activation::sigmoid, -x);
  if (rest <= T(0.5)) return std::log1p(-rest);
  const T larger = std::max(x, std::log(lb)), smaller = std::min(x, std::log(lb));
  return larger + std::log1p(std::exp(smaller - larger)) - std::log1p(std::exp(x));
}

template <class T>
void decay_gate(const DecayGateArgs<T>& a) {
  const Index channels = a.x.shape[1], heads = a.a_log ? a.a_log.shape[0] : channels;
  for (Index t = 0; t < a.x.shape[0]; ++t)
    for (Index c = 0; c < channels; ++c) {
      const T x = a.x(t, c) + (a.dt_bias ? a.dt_bias(c) : T(0));
      const T rate = a.a_log ? std::exp(a.a_log(c / (channels / heads))) : T(1);
      switch (a.formula) {
        case DecayFormula::softplus: {
          const T step = std::clamp(activation(Activation::softplus, x), a.min_step, a.max_step);
          if (a.step) a.step(t, c) = step;
          a.out(t, c) = -rate * step;
          break;
        }
        case DecayFormula::bounded: a.out(t, c) = a.bound * activation(Activation::sigmoid, rate * x); break;
        case DecayFormula::log_sigmoid:
          a.out(t, c) = std::max(-activation(Activation::softplus, -x) / a.temperature, a.floor);
          break;
        case DecayFormula::exponential: a.out(t, c) = -std::exp(x); break;
        case DecayFormula::lower_bounded: a.out(t, c) = lower_bounded_decay(x, a.lower_bound(c)); break;
      }
      if (a.complement) a.complement(t, c) = -std::expm1(a.out(t, c));
    }
  if (a.beta)
    for (Index t = 0; t < a.beta.shape[0]; ++t)
      for (Index h = 0; h < a.beta.shape[1]; ++h)
        a.beta(t, h) = a.beta_scale / (1 + std::exp(-a.beta_logits(t, h)));
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
