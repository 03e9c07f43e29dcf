// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/pad2d.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// The pixel of an image of extent n that stands at i, which may be outside; -1: a zero.
inline Index padded_source(PadMode mode, Index i, Index n) {
  if (i >= 0 && i < n) return i;
  if (mode == PadMode::zero) return -1;
  const Index edge = mode == PadMode::reflect ? 0 : 1;
  return i < 0 ? -i - edge : 2 * (n - 1) - i + edge;
}

template <class T>
void pad2d(const Pad2dArgs<T>& a) {
  for (Index n = 0; n < a.out.shape[0]; ++n)
    for (Index h = 0; h < a.out.shape[1]; ++h)
      for (Index w = 0; w < a.out.shape[2]; ++w) {
        const Index i = padded_source(a.mode, h - a.before[0], a.x.shape[1]),
                    j = padded_source(a.mode, w - a.before[1], a.x.shape[2]);
        for (Index c = 0; c < a.out.shape[3]; ++c) a.out(n, h, w, c) = i < 0 || j < 0 ? 0 : a.x(n, i, j, c);
      }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
