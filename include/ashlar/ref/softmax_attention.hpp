// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

namespace detail {

// An element of a table whose axes of extent 1 are broadcast.
template <class T, int Rank, class... I>
T broadcast(const View<const T, Rank>& table, I... index) {
  int axis = 0;
  const T* p = table.data;
  ((p += (table.shape[axis] == 1 ? 0 : static_cast<Index>(index)) * table.strides[axis], ++axis), ...);
  return *p;
}

template <class T>
T attention_score(const AttentionScoreArgs<T>& s, T x, Index n, Index h, Index i, Index position, Index j) {
  if (s.soft_cap != 0) x = s.soft_cap * std::tanh(x / s.soft_cap);
  if (s.alibi) x -= s.alibi(h) * static_cast<T>(std::abs(position - j));
  if (s.relative) {
    const Index reach = s.relative.shape[1] / 2;
    x += broadcast(s.relative, h, reach + std::clamp(j - position, -reach, reach));
  }
  if (s.bias) x += broadcast(s.bias, n, h, i, j);
  return x;
}

}  // namespace detail

template <class T, class Kv, class Q>
void softmax_attention(const SoftmaxAttentionArgs<T, Kv, Q>& a) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const auto [tokens, heads, dim] = a.q.shape;
  const T scale = a.score.scale != 0 ? a.score.scale : 1 / std::sqrt(T(std::max<Index>(1, dim)));
  const bool softmax = a.normalizer <= AttentionNormalizer::softmax_plus_one;
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const auto& kv = a.sequences[static_cast<std::size_t>(n)];
    const Index begin = a.offsets.begin(n), queries = a.offsets.end(n, tokens) - begin;
    for (Index i = 0; i < queries; ++i)
      for (Index h = 0; h < heads; ++h) {
        const Index kh = h / (heads / kv.k.shape[1]), position = kv.end() - queries + i;
        std::vector<Index> rows;
        std::vector<T> s;
        for (Index j = kv.start; j < kv.end(); ++j) {
          if (!a.pattern.visible(h, position, j)) continue;
          T x = 0;
          for (Index c = 0; c < dim; ++c)
            x += static_cast<T>(a.q(begin + i, h, c)) * static_cast<T>(kv.k(kv.row(j), kh, c));
          rows.push_back(kv.row(j));
          s.push_back(detail::attention_score<T>(a.score, x * scale, n, h, i, position, j));
        }
        if (a.top_k > 0 && a.top_k < static_cast<Index>(s.size())) {
          std::vector<T> sorted = s;
          std::sort(sorted.begin(), sorted.end(), std::greater<T>());
          const T least = sorted[static_cast<std::size_t>(a.top_k - 1)];
          for (T& x : s)
            if (x < least) x = kLowest;
        }
        // The sink, and the one of softmax_plus_one, are scores without a value.
        std::vector<T> all = s;
        if (a.score.sinks) all.push_back(a.score.sinks(h));
        if (a.normalizer == AttentionNormalizer::softmax_plus_one) all.push_back(0);
        T most = kLowest, sum = 0, entropy = 0;
        for (T x : all) most = std::max(most, x);
        for (T x : all) sum += x == kLowest ? T(0) : std::exp(x - most);
        const T lse = sum > 0 ? most + std::log(sum) : kLowest;
        for (T x : all)
          if (x != kLowest) entropy -= std::exp(x - most) / sum * (x - lse);
        auto probability = [&](T x) -> T {
          if (x == kLowest) return 0;
          switch (a.normalizer) {
            case AttentionNormalizer::sigmoid: return 1 / (1 + std::exp(-x));
            case AttentionNormalizer::relu: return std::max(x, T(0));
            case AttentionNormalizer::relu_squared: return x > 0 ? x * x : T(0);
            default: return std::exp(x - most) / sum;
          }
        };
        for (Index c = 0; c < kv.v.shape[2]; ++c) {
          T o = 0;
          for (std::size_t m = 0; m < s.size(); ++m)
            o += probability(s[m]) * static_cast<T>(kv.v(rows[m], kh, c));
          a.out(begin + i, h, c) = o;
        }
        if (a.lse && softmax) a.lse(begin + i, h) = lse;
        if (a.entropy && softmax) a.entropy(begin + i, h) = entropy;
      }
  }
}

template <class T>
void merge_attention(const MergeAttentionArgs<T>& m) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  for (Index t = 0; t < m.out.shape[0]; ++t)
    for (Index h = 0; h < m.out.shape[1]; ++h) {
      const T x = m.lse_a(t, h), y = m.lse_b(t, h), most = std::max(x, y);
      const T lse = most == kLowest ? kLowest : most + std::log(std::exp(x - most) + std::exp(y - most));
      const T from_a = x == kLowest ? T(0) : std::exp(x - lse),
              from_b = y == kLowest ? T(0) : std::exp(y - lse);
      for (Index c = 0; c < m.out.shape[2]; ++c) {
        const T a = from_a == 0 ? T(0) : from_a * m.a(t, h, c),
                b = from_b == 0 ? T(0) : from_b * m.b(t, h, c);
        m.out(t, h, c) = a + b;
      }
      if (m.lse) m.lse(t, h) = lse;
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
