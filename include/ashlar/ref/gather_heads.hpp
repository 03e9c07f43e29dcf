// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/gather_heads.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void gather_heads(const GatherHeadsArgs<T>& a) {
  for (Index e = 0; e < a.out.shape[0]; ++e)
    for (Index h = 0; h < a.out.shape[1]; ++h)
      for (Index c = 0; c < a.out.shape[2]; ++c)
        a.out(e, h, c) = a.index(e, h) < 0 ? T(0) : a.x(a.index(e, h), h, c);
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
