// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>

#include "ashlar/ops/norm.hpp"
#include "ashlar/ref/activation.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void rms_norm(const RmsNormArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      T sum = 0;
      for (Index i = 0; i < dim; ++i) sum += a.x(t, h, i) * a.x(t, h, i);
      const T scale = 1 / std::sqrt(sum / T(dim) + a.eps);
      for (Index i = 0; i < dim; ++i) {
        const T weight = a.weight ? a.weight(a.weight.shape[0] == dim ? i : h * dim + i) : T(1);
        const T gate = a.gate ? activation(a.gate_activation, a.gate(t, h, i)) : T(1);
        a.out(t, h, i) = (a.weight_offset + weight) * a.x(t, h, i) * scale * gate;
      }
    }
}

template <class T>
void layer_norm(const LayerNormArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      T sum = 0, squares = 0;
      for (Index i = 0; i < dim; ++i) sum += a.x(t, h, i);
      const T mean = sum / T(dim);
      for (Index i = 0; i < dim; ++i) squares += (a.x(t, h, i) - mean) * (a.x(t, h, i) - mean);
      const T scale = 1 / std::sqrt(squares / T(dim) + a.eps);
      for (Index i = 0; i < dim; ++i) {
        const T weight = a.weight ? a.weight(a.weight.shape[0] == dim ? i : h * dim + i) : T(1);
        const T bias = a.bias ? a.bias(a.bias.shape[0] == dim ? i : h * dim + i) : T(0);
        const T gate = a.gate ? activation(a.gate_activation, a.gate(t, h, i)) : T(1);
        a.out(t, h, i) = (weight * (a.x(t, h, i) - mean) * scale + bias) * gate;
      }
    }
}

template <class T>
void l2_norm(const L2NormArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      T sum = 0;
      for (Index i = 0; i < dim; ++i) sum += a.x(t, h, i) * a.x(t, h, i);
      for (Index i = 0; i < dim; ++i) a.out(t, h, i) = a.x(t, h, i) / std::sqrt(sum + a.eps) * a.scale;
    }
}

template <class T>
void sum_norm(const SumNormArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      T sum = 0;
      for (Index i = 0; i < dim; ++i) sum += a.x(t, h, i);
      for (Index i = 0; i < dim; ++i) a.out(t, h, i) = a.x(t, h, i) / (sum + a.eps);
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
