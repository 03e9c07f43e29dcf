// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>

#include "ashlar/ops/rwkv7_gates.hpp"
#include "ashlar/ref/activation.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void rwkv7_values(const Rwkv7ValuesArgs<T>& a) {
  for (Index t = 0; t < a.v.shape[0]; ++t)
    for (Index i = 0; i < a.v.shape[1]; ++i)
      a.out(t, i) = a.v(t, i) + activation(Activation::sigmoid, a.gate(t, i)) * (a.first(t, i) - a.v(t, i));
}

template <class T>
void rwkv7_keys(const Rwkv7KeysArgs<T>& a) {
  const auto [tokens, heads, dim] = a.k.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      T sum = 0;
      for (Index i = 0; i < dim; ++i) sum += a.k(t, h, i) * a.k_k(h, i) * a.k(t, h, i) * a.k_k(h, i);
      for (Index i = 0; i < dim; ++i) {
        const T k = a.k(t, h, i), kk = k * a.k_k(h, i) / std::sqrt(sum + a.eps);
        const T eta = activation(Activation::sigmoid, a.gate(t, h, i));
        a.a(t, h, i) = -kk, a.b(t, h, i) = kk * eta;
        a.key(t, h, i) = k * (1 + (eta - 1) * a.k_a(h, i));
      }
    }
}

template <class T>
void rwkv7_output(const Rwkv7OutputArgs<T>& a) {
  const auto [tokens, heads, dv] = a.x.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      T sum = 0;
      for (Index i = 0; i < a.r.shape[2]; ++i) sum += a.r(t, h, i) * a.k(t, h, i) * a.r_k(h, i);
      for (Index i = 0; i < dv; ++i) a.out(t, h, i) = (a.x(t, h, i) + sum * a.v(t, h, i)) * a.gate(t, h, i);
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
