// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/view.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// out = x W^T + bias; x [M, K], weight [N, K], bias [N] or empty, out [M, N].
template <class T>
void dense(View<const T, 2> x, View<const T, 2> weight, View<const T, 1> bias, View<T, 2> out) {
  for (Index m = 0; m < out.shape[0]; ++m)
    for (Index n = 0; n < out.shape[1]; ++n) {
      T sum = bias ? bias(n) : T(0);
      for (Index k = 0; k < x.shape[1]; ++k) sum += x(m, k) * weight(n, k);
      out(m, n) = sum;
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
