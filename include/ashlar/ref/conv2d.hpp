// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/conv2d.hpp"
#include "ashlar/ref/activation.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// The filters as checkpoints have them: weight [O, I / groups, kh, kw].
template <class T>
struct Conv2dArgs {
  View<const T, 4> x, weight;
  View<const T, 1> bias;
  View<T, 4> out;
  Index groups = 1;
  Conv2dSteps steps;
  Activation activation = Activation::identity;
  T negative_slope = T(kNegativeSlope);
  View<const T, 4> residual;
};

template <class T>
void conv2d(const Conv2dArgs<T>& a) {
  const auto [images, rows, columns, outputs] = a.out.shape;
  const Index inputs = a.weight.shape[1], kh = a.weight.shape[2], kw = a.weight.shape[3];
  const Conv2dSteps& s = a.steps;
  for (Index n = 0; n < images; ++n)
    for (Index h = 0; h < rows; ++h)
      for (Index w = 0; w < columns; ++w)
        for (Index o = 0; o < outputs; ++o) {
          const Index first = o / (outputs / a.groups) * inputs;
          T y = a.bias ? a.bias(o) : T(0);
          for (Index r = 0; r < kh; ++r)
            for (Index c = 0; c < kw; ++c) {
              const Index i = h * s.stride[0] - s.padding[0] + r * s.dilation[0],
                          j = w * s.stride[1] - s.padding[1] + c * s.dilation[1];
              if (i < 0 || i >= a.x.shape[1] || j < 0 || j >= a.x.shape[2]) continue;
              for (Index k = 0; k < inputs; ++k) y += a.weight(o, k, r, c) * a.x(n, i, j, first + k);
            }
          const T f = activation(a.activation, y, a.negative_slope);
          a.out(n, h, w, o) = a.residual ? f + a.residual(n, h, w, o) : f;
        }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
