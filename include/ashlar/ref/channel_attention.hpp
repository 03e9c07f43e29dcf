// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "ashlar/core/tiles.hpp"
#include "ashlar/ops/channel_attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// scores becomes weights, for one channel of q.
template <class T>
void channel_weights(ChannelWeights weights, std::vector<T>& scores) {
  const T top = *std::max_element(scores.begin(), scores.end());
  T sum = 0;
  for (T& s : scores) {
    switch (weights) {
      case ChannelWeights::softmax: s = std::exp(s - top); break;
      case ChannelWeights::relu: s = s < 0 ? T(0) : s; break;
      case ChannelWeights::gelu: s = s * std::erfc(-s / std::sqrt(T(2))) / 2; break;
      case ChannelWeights::sigmoid: s = 1 / (1 + std::exp(-s)); break;
    }
    sum += s;
  }
  if (weights == ChannelWeights::softmax)
    for (T& s : scores) s /= sum;
}

template <class T>
void channel_attention(const ChannelAttentionArgs<T>& a) {
  const auto [images, height, width, channels] = a.q.shape;
  if (a.q.size() == 0) return;
  const Index dim = channels / a.heads;
  const Index rows = a.tile[0] == 0 ? height : std::min(height, a.tile[0]);
  const Index columns = a.tile[1] == 0 ? width : std::min(width, a.tile[1]);
  std::vector<T> sums(static_cast<std::size_t>(a.q.size())), scores(static_cast<std::size_t>(dim));
  std::vector<T> counts(static_cast<std::size_t>(height * width));
  const View<T, 4> total(sums.data(), a.q.shape);
  const View<T, 2> count(counts.data(), {height, width});
  for (Index y = 0; y < height * width; ++y) counts[static_cast<std::size_t>(y)] = 0;
  for (Index top : tile_starts(height, rows))
    for (Index left : tile_starts(width, columns)) {
      const auto over = [&](auto&& f) {
        for (Index y = top; y < top + rows; ++y)
          for (Index x = left; x < left + columns; ++x) f(y, x);
      };
      const auto dot = [&](Index n, const View<const T, 4>& p, Index c, const View<const T, 4>& r, Index d) {
        T sum = 0;
        over([&](Index y, Index x) { sum += p(n, y, x, c) * r(n, y, x, d); });
        return sum;
      };
      over([&](Index y, Index x) { count(y, x) += 1; });
      for (Index n = 0; n < images; ++n)
        for (Index c = 0; c < channels; ++c) {
          const Index h = c / dim;
          const T norm = std::max(std::sqrt(dot(n, a.q, c, a.q, c)), T(1e-12));
          for (Index i = 0; i < dim; ++i) {
            const Index d = h * dim + i;
            const T other = std::max(std::sqrt(dot(n, a.k, d, a.k, d)), T(1e-12));
            scores[static_cast<std::size_t>(i)] =
                (a.temperature ? a.temperature(h) : T(1)) * dot(n, a.q, c, a.k, d) / norm / other;
          }
          channel_weights(a.weights, scores);
          over([&](Index y, Index x) {
            for (Index i = 0; i < dim; ++i)
              total(n, y, x, c) += scores[static_cast<std::size_t>(i)] * a.v(n, y, x, h * dim + i);
          });
        }
    }
  for (Index n = 0; n < images; ++n)
    for (Index y = 0; y < height; ++y)
      for (Index x = 0; x < width; ++x)
        for (Index c = 0; c < channels; ++c) a.out(n, y, x, c) = total(n, y, x, c) / count(y, x);
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
