// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "ashlar/ops/window_attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

namespace detail {

// Head h of a slot's vector [dim]; zeros outside the image.
template <class T>
std::vector<T> slot_vector(const View<const T, 4>& x, Index first, const GroupMap::Slot& s, Index h,
                           Index dim) {
  std::vector<T> y(static_cast<std::size_t>(dim));
  if (s.inside()) std::copy_n(x.at(first + s.view, s.row, s.column, h * dim), dim, y.begin());
  return y;
}

template <class T>
T dot(const std::vector<T>& x, const std::vector<T>& y) {
  T sum = 0;
  for (std::size_t c = 0; c < x.size(); ++c) sum += x[c] * y[c];
  return sum;
}

}  // namespace detail

template <class T>
void window_attention(const WindowAttentionArgs<T>& a) {
  const GroupMap& key_map = a.key_map ? a.key_map : a.map;
  const Index dim = a.q.shape[3] / a.heads, value_dim = a.v.shape[3] / a.heads, views = a.map.views();
  const T scale = a.scale != 0 ? a.scale : 1 / std::sqrt(T(std::max<Index>(1, dim)));
  const auto norm = [](const std::vector<T>& x) { return std::max(std::sqrt(detail::dot(x, x)), T(1e-12)); };
  for (Index item = 0; item < a.q.shape[0] / views; ++item)
    for (Index g = 0; g < a.map.groups(); ++g)
      for (Index h = 0; h < a.heads; ++h)
        for (Index n = 0; n < a.map.slots(); ++n) {
          const GroupMap::Slot to = a.map.at(g, n);
          if (!to.inside()) continue;
          const std::vector<T> q = detail::slot_vector(a.q, item * views, to, h, dim);
          std::vector<T> s, o(static_cast<std::size_t>(value_dim));
          for (Index m = 0; m < key_map.slots(); ++m) {
            const std::vector<T> k = detail::slot_vector(a.k, item * views, key_map.at(g, m), h, dim);
            T x = detail::dot(q, k) * (a.tau ? a.tau(h) / norm(q) / norm(k) : scale);
            if (a.bias) x += a.bias(h, n, m);
            if (a.map.shifted() && a.shift_mask != 0 && a.map.region(g, n) != a.map.region(g, m))
              x += a.shift_mask;
            s.push_back(x);
          }
          T most = s[0], sum = 0;
          for (T x : s) most = std::max(most, x);
          for (T x : s) sum += std::exp(x - most);
          for (Index m = 0; m < key_map.slots(); ++m) {
            const std::vector<T> v = detail::slot_vector(a.v, item * views, key_map.at(g, m), h, value_dim);
            const T p = std::exp(s[static_cast<std::size_t>(m)] - most) / sum;
            for (std::size_t c = 0; c < v.size(); ++c) o[c] += p * v[c];
          }
          std::copy(o.begin(), o.end(), a.out.at(item * views + to.view, to.row, to.column, h * value_dim));
        }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
