// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "ashlar/ops/scale_channels.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void scale_channels(const ScaleChannelsArgs<T>& a) {
  const auto [images, rows, columns, channels] = a.x.shape;
  for (Index n = 0; n < images; ++n)
    for (Index h = 0; h < rows; ++h)
      for (Index w = 0; w < columns; ++w)
        for (Index c = 0; c < channels; ++c)
          a.out(n, h, w, c) = a.factor * a.gate(n, c) * a.x(n, h, w, c) + (a.add ? a.add(n, h, w, c) : T(0));
}

template <class T>
void dynamic_relu(const DynamicReluArgs<T>& a) {
  const auto [images, rows, columns, channels] = a.x.shape;
  for (Index n = 0; n < images; ++n)
    for (Index h = 0; h < rows; ++h)
      for (Index w = 0; w < columns; ++w)
        for (Index c = 0; c < channels; ++c) {
          const T x = a.x(n, h, w, c);
          a.out(n, h, w, c) = std::max(a.slopes(n, c) * x, a.slopes(n, channels + c) * x);
        }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
