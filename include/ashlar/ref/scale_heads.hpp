// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/scale_heads.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void scale_heads(const ScaleHeadsArgs<T>& a) {
  const auto [tokens, heads, dim] = a.out.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < dim; ++i)
        a.out(t, h, i) =
            a.scale(t, h, a.scale.shape[2] == 1 ? 0 : i) * a.x(t, h / (heads / a.x.shape[1]), i) +
            (a.add ? a.add(t, h, i) : T(0));
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
