// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <vector>

#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void softmax_attention(const SoftmaxAttentionArgs<T>& a) {
  const auto [tokens, heads, dim] = a.q.shape;
  const T scale = a.scale != 0 ? a.scale : 1 / std::sqrt(T(dim));
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const auto& [k, v] = a.sequences[static_cast<std::size_t>(n)];
    const Index begin = a.offsets.begin(n), queries = a.offsets.end(n, tokens) - begin, keys = k.shape[0];
    std::vector<T> p(static_cast<std::size_t>(keys));
    for (Index i = 0; i < queries; ++i)
      for (Index h = 0; h < heads; ++h) {
        const Index kh = h / (heads / k.shape[1]), position = keys - queries + i;
        auto visible = [&](Index j) {
          return (!a.causal || j <= position) && (a.window == 0 || j > position - a.window);
        };
        T most = -INFINITY, sum = 0;
        for (Index j = 0; j < keys; ++j) {
          T s = 0;
          for (Index c = 0; c < dim; ++c) s += a.q(begin + i, h, c) * k(j, kh, c);
          p[static_cast<std::size_t>(j)] = s * scale;
          if (visible(j)) most = std::max(most, s * scale);
        }
        for (Index j = 0; j < keys; ++j) {
          T& e = p[static_cast<std::size_t>(j)];
          sum += e = visible(j) ? std::exp(e - most) : T(0);
        }
        for (Index c = 0; c < v.shape[2]; ++c) {
          T o = 0;
          for (Index j = 0; j < keys; ++j)
            if (visible(j)) o += p[static_cast<std::size_t>(j)] * v(j, kh, c);
          a.out(begin + i, h, c) = sum > 0 ? o / sum : T(0);
        }
      }
  }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
