// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>

#include "ashlar/ops/rope.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void rope(const RopeArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  const Index pairs = a.inverse_frequencies.shape[0];
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      for (Index i = 0; i < pairs; ++i) {
        const bool split = a.layout == RopeLayout::half_split;
        const Index first = split ? i : 2 * i, second = split ? i + pairs : 2 * i + 1;
        const double angle =
            static_cast<double>(a.positions(t)) * static_cast<double>(a.inverse_frequencies(i));
        const T c = static_cast<T>(std::cos(angle)), s = static_cast<T>(std::sin(angle));
        const T x0 = a.x(t, h, first), x1 = a.x(t, h, second);
        a.out(t, h, first) = a.factor * (x0 * c - x1 * s);
        a.out(t, h, second) = a.factor * (x1 * c + x0 * s);
      }
      for (Index i = 2 * pairs; i < dim; ++i) a.out(t, h, i) = a.x(t, h, i);
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
