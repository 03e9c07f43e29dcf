// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "ashlar/ops/lsh.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void lsh_sort(const LshSortArgs<T>& a) {
  const auto [tokens, heads, rounds, width] = a.rotated.shape;
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const Index begin = a.offsets.begin(n), end = a.offsets.end(n, tokens);
    const Index half = a.bucket_size != 0 ? (end - begin) / a.bucket_size / 2 : width;
    for (Index h = 0; h < heads; ++h)
      for (Index r = 0; r < rounds; ++r) {
        std::vector<Index> bucket, sorted(static_cast<std::size_t>(end - begin));
        for (Index t = begin; t < end; ++t) {
          std::vector<T> both;
          for (Index i = 0; i < 2 * half; ++i)
            both.push_back(i < half ? a.rotated(t, h, r, i) : -a.rotated(t, h, r, i - half));
          bucket.push_back(std::max_element(both.begin(), both.end()) - both.begin());
          if (a.buckets) a.buckets(r, t, h) = bucket.back();
        }
        std::iota(sorted.begin(), sorted.end(), Index{0});
        std::stable_sort(sorted.begin(), sorted.end(), [&](Index x, Index y) {
          return bucket[static_cast<std::size_t>(x)] < bucket[static_cast<std::size_t>(y)];
        });
        for (Index e = begin; e < end; ++e) {
          const Index t = begin + sorted[static_cast<std::size_t>(e - begin)];
          a.order(r, e, h) = t, a.place(r, t, h) = e;
        }
      }
  }
}

template <class T>
void lsh_bias(const LshBiasArgs<T>& a) {
  const auto [rounds, tokens, heads] = a.order.shape;
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const Index begin = a.offsets.begin(n), chunks = (a.offsets.end(n, tokens) - begin) / a.chunk;
    // Of all chunks of all rounds.
    auto number = [&](Index round, Index t, Index h) {
      return round * chunks + (a.place(round, t, h) - begin) / a.chunk;
    };
    for (Index c = 0; c < chunks; ++c)
      for (Index h = 0; h < heads; ++h)
        for (Index q = 0; q < a.chunk; ++q)
          for (Index e = 0; e < 2 * a.chunk; ++e) {
            const bool back = e < a.chunk && c == 0;  // into the round before
            const Index round = back ? (a.round + rounds - 1) % rounds : a.round;
            const Index at = (back ? chunks : c) * a.chunk + e - a.chunk;
            const Index i = a.order(a.round, begin + c * a.chunk + q, h), j = a.order(round, begin + at, h);
            T bias = a.causal && j > i ? -std::numeric_limits<T>::infinity() : i == j ? a.self : T(0);
            if (a.correct_duplicates) {
              Index count = 0;
              for (Index r = 0; r < rounds; ++r) {
                const Index mine = number(r, i, h), other = number(r, j, h);
                count += (mine == other ? 1 : 0) + (mine == (other + 1) % (rounds * chunks) ? 1 : 0);
              }
              bias -= std::log(static_cast<T>(count) + T(1e-9));
            }
            a.out(begin / a.chunk + c, h, q, e) = bias;
          }
  }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
