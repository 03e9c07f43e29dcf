// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "ashlar/ops/favor.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void favor_features(const FavorFeaturesArgs<T>& a) {
  const auto [tokens, heads, features] = a.projected.shape;
  auto largest = [&, features = features](Index begin, Index end, Index h) {
    T most = -std::numeric_limits<T>::infinity();
    for (Index t = begin; t < end; ++t)
      for (Index i = 0; i < features; ++i) most = std::max(most, a.scale * a.projected(t, h, i));
    return most;
  };
  for (Index n = 0; n < a.offsets.count(); ++n)
    for (Index h = 0; h < heads; ++h) {
      const Index begin = a.offsets.begin(n), end = a.offsets.end(n, tokens);
      for (Index t = begin; t < end; ++t) {
        if (a.kind == FavorFeaturesArgs<T>::relu) {
          for (Index i = 0; i < features; ++i)
            a.out(t, h, i) = std::max(a.scale * a.projected(t, h, i), T(0)) + a.eps;
          continue;
        }
        const T c = a.stabilizer == FavorStabilizer::none  ? T(0)
                    : a.stabilizer == FavorStabilizer::row ? largest(t, t + 1, h)
                                                           : largest(begin, end, h);
        T square = 0;
        for (Index i = 0; i < a.x.shape[2]; ++i) square += a.x(t, h, i) * a.x(t, h, i);
        for (Index i = 0; i < features; ++i)
          a.out(t, h, i) =
              (std::exp(a.scale * a.projected(t, h, i) - a.scale * a.scale * square / 2 - c) + a.eps) /
              std::sqrt(T(features));
      }
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
