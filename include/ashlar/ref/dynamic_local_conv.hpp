// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/dynamic_local_conv.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void dynamic_local_conv(const DynamicLocalConvArgs<T>& a) {
  const auto [images, rows, columns, channels] = a.out.shape;
  const Index height = a.x.shape[1], width = channels / a.kernels.shape[4];
  const auto [kh, kw] = a.kernel;
  for (Index n = 0; n < images; ++n)
    for (Index h = 0; h < rows; ++h)
      for (Index w = 0; w < columns; ++w)
        for (Index c = 0; c < channels; ++c) {
          T sum = 0;
          for (Index r = 0; r < kh; ++r)
            for (Index s = 0; s < kw; ++s) {
              const Index i = a.first_row + h + r - kh / 2, j = w + s - kw / 2;
              if (i < 0 || i >= height || j < 0 || j >= columns) continue;
              sum += a.kernels(n, h, w, r * kw + s, c / width) * a.x(n, i, j, c);
            }
          a.out(n, h, w, c) = sum;
        }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
