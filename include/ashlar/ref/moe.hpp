// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ashlar/ops/moe.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// Indices of the n largest values, best first; of equal ones the lower index.
template <class T>
std::vector<Index> largest(const std::vector<T>& values, Index n) {
  std::vector<Index> order(values.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(n));
  return order;
}

template <class T>
void moe_route(const MoeRouteArgs<T>& a) {
  const Index experts = a.logits.shape[1], chosen = a.experts.shape[1], size = experts / a.groups;
  for (Index t = 0; t < a.logits.shape[0]; ++t) {
    std::vector<T> score, choice;
    T most = a.logits(t, 0), total = 0;
    for (Index e = 0; e < experts; ++e) most = std::max(most, a.logits(t, e));
    for (Index e = 0; e < experts; ++e) {
      const T x = a.logits(t, e);
      score.push_back(a.score == RouterScore::softmax ? std::exp(x - most) : 1 / (1 + std::exp(-x)));
      total += score.back();
    }
    for (Index e = 0; e < experts; ++e) {
      T& s = score[static_cast<std::size_t>(e)];
      if (a.score == RouterScore::softmax) s /= total;
      choice.push_back(s + (a.selection_bias ? a.selection_bias(e) : T(0)));
    }
    if (a.groups > 1) {
      std::vector<T> worth;
      for (Index g = 0; g < a.groups; ++g) {
        const std::vector<T> members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
        T sum = 0;
        for (Index e : largest(members, std::min<Index>(2, size)))
          sum += members[static_cast<std::size_t>(e)];
        worth.push_back(sum);
      }
      const std::vector<Index> kept = largest(worth, a.chosen_groups);
      for (Index g = 0; g < a.groups; ++g)
        if (std::find(kept.begin(), kept.end(), g) == kept.end())
          std::fill_n(choice.begin() + g * size, size, T(0));
    }
    const std::vector<Index> best = largest(choice, chosen);
    T sum = T(1e-20);
    for (Index e : best) sum += score[static_cast<std::size_t>(e)];
    for (Index j = 0; j < chosen; ++j) {
      const Index e = best[static_cast<std::size_t>(j)];
      a.experts(t, j) = static_cast<std::int32_t>(e);
      a.weights(t, j) = a.scale * score[static_cast<std::size_t>(e)] / (a.renormalize ? sum : T(1));
    }
  }
}

inline void moe_group(const MoeGroup& a) {
  Index next = 0;
  for (Index e = 0; e + 1 < a.offsets.shape[0]; ++e) {
    a.offsets(e) = next;
    for (Index t = 0; t < a.experts.shape[0]; ++t)
      for (Index j = 0; j < a.experts.shape[1]; ++j)
        if (a.experts(t, j) == e) a.tokens(next) = t, a.rows(t, j) = next++;
  }
  a.offsets(a.offsets.shape[0] - 1) = next;
}

template <class T>
void moe_gather(const MoeGatherArgs<T>& a) {
  for (Index i = 0; i < a.tokens.shape[0]; ++i)
    for (Index c = 0; c < a.x.shape[1]; ++c) a.out(i, c) = a.x(a.tokens(i), c);
}

template <class T>
void moe_combine(const MoeCombineArgs<T>& a) {
  for (Index t = 0; t < a.out.shape[0]; ++t)
    for (Index c = 0; c < a.out.shape[1]; ++c) {
      T sum = 0;
      for (Index j = 0; j < a.rows.shape[1]; ++j) sum += a.weights(t, j) * a.y(a.rows(t, j), c);
      if (a.shared) sum += a.shared(t, c) * (a.shared_gate ? 1 / (1 + std::exp(-a.shared_gate(t, 0))) : T(1));
      a.out(t, c) = sum;
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
