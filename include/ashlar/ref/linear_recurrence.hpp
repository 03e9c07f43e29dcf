// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <vector>

#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// One token and head after another; `state` [N, Hv, Dk, Dv] stands for the argument's states and is updated.
template <class T>
void linear_recurrence(const LinearRecurrenceArgs<T>& a, View<T, 4> state) {
  const auto [tokens, value_heads, dv] = a.v.shape;
  const Index group = value_heads / a.k.shape[1], dk = a.k.shape[2];
  const T scale = a.scale != 0 ? a.scale : 1 / std::sqrt(T(dk));
  std::vector<T> u(static_cast<std::size_t>(dv));
  for (Index n = 0; n < a.offsets.count(); ++n)
    for (Index h = 0; h < value_heads; ++h)
      for (Index t = a.offsets.begin(n); t < a.offsets.end(n, tokens); ++t) {
        const auto s = state[n][h];
        const T decay = a.g ? std::exp(a.g(t, h)) : T(1), beta = a.beta ? a.beta(t, h) : T(1);
        for (Index j = 0; j < dv; ++j) {
          T seen = 0;
          for (Index i = 0; i < dk; ++i) seen += (s(i, j) *= decay) * a.k(t, h / group, i);
          u[static_cast<std::size_t>(j)] = beta * (a.v(t, h, j) - (a.beta ? seen : T(0)));
        }
        for (Index j = 0; j < dv; ++j) {
          T out = 0;
          for (Index i = 0; i < dk; ++i)
            out += (s(i, j) += a.k(t, h / group, i) * u[static_cast<std::size_t>(j)]) * a.q(t, h / group, i);
          a.out(t, h, j) = scale * out;
        }
      }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
