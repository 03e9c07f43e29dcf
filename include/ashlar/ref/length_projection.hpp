// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/length_projection.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void length_projection(const LengthProjectionArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  const Index rank = a.weight.shape[2];
  for (Index n = 0; n < a.offsets.count(); ++n)
    for (Index m = 0; m < rank; ++m)
      for (Index h = 0; h < heads; ++h)
        for (Index c = 0; c < dim; ++c) {
          const Index begin = a.offsets.begin(n), length = a.offsets.end(n, tokens) - begin;
          T sum = 0;
          for (Index l = 0; l < length; ++l)
            sum += a.weight(a.weight.shape[0] == 1 ? 0 : h, l, m) * a.x(begin + l, h, c);
          a.out(n * rank + m, h, c) = sum;
        }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
