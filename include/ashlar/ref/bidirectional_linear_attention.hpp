// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <vector>

#include "ashlar/ops/bidirectional_linear_attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void bidirectional_linear_attention(const BidirectionalLinearAttentionArgs<T>& a) {
  const auto [tokens, heads, features] = a.q.shape;
  const Index dv = a.v.shape[2];
  for (Index n = 0; n < a.offsets.count(); ++n)
    for (Index h = 0; h < heads; ++h) {
      const Index begin = a.offsets.begin(n), end = a.offsets.end(n, tokens),
                  from = h / (heads / a.k.shape[1]);
      const Index keys = a.key_lengths.empty() ? end : begin + a.key_lengths[static_cast<std::size_t>(n)];
      for (Index t = begin; t < end; ++t) {
        T divisor = 0;
        std::vector<T> o(static_cast<std::size_t>(dv));
        for (Index s = begin; s < keys; ++s) {
          T weight = 0;
          for (Index i = 0; i < features; ++i) weight += a.q(t, h, i) * a.k(s, from, i);
          divisor += weight;
          for (Index c = 0; c < dv; ++c) o[static_cast<std::size_t>(c)] += weight * a.v(s, from, c);
        }
        const T guard = a.guard > 0 && std::abs(divisor) <= a.guard ? 2 * a.guard : T(0);
        for (Index c = 0; c < dv; ++c)
          a.out(t, h, c) = o[static_cast<std::size_t>(c)] / (divisor + a.normalizer_eps + guard);
      }
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
