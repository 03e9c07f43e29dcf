// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>

#include "ashlar/ops/feature_map.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void dpfp(const DpfpArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index j = 1; j <= a.nu; ++j)
        for (Index i = 0; i < 2 * dim; ++i) {
          const Index other = (i + 2 * dim * a.nu - j) % (2 * dim);
          auto r = [&, t = t, h = h, dim = dim](Index at) {
            const T positive = std::max(a.x(t, h, at % dim), T(0));
            return at < dim ? positive : -positive;
          };
          a.out(t, h, (j - 1) * 2 * dim + i) = r(i) * r(other);
        }
}

template <class T>
void hedgehog(const HedgehogArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      T most = 0, sum = 0;
      for (Index i = 0; i < dim; ++i) most = std::max(most, std::abs(a.scale * a.x(t, h, i)));
      for (Index i = 0; i < dim; ++i) {
        a.out(t, h, i) = std::exp(a.scale * a.x(t, h, i) - most);
        a.out(t, h, dim + i) = std::exp(-a.scale * a.x(t, h, i) - most);
        sum += a.out(t, h, i) + a.out(t, h, dim + i);
      }
      for (Index i = 0; i < 2 * dim; ++i) a.out(t, h, i) /= sum;
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
