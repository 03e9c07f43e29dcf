// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>

#include "ashlar/ops/sinkhorn.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void sinkhorn(const SinkhornArgs<T>& a) {
  const auto [matrices, rows, columns] = a.logits.shape;
  for (Index n = 0; n < matrices; ++n) {
    auto r = [&, n = n](bool by_row, Index i, Index j) -> T& {
      return by_row ? a.out(n, i, j) : a.out(n, j, i);
    };
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j) a.out(n, i, j) = a.logits(n, i, j) / a.temperature;
    for (Index half = 0; half < 2 * a.iterations; ++half) {
      const bool by_row = (half % 2 == 0) != a.columns_first;
      const Index outer = by_row ? rows : columns, inner = by_row ? columns : rows;
      for (Index i = 0; i < outer; ++i) {
        T most = r(by_row, i, 0), sum = 0;
        for (Index j = 0; j < inner; ++j) most = std::max(most, r(by_row, i, j));
        for (Index j = 0; j < inner; ++j) sum += std::exp(r(by_row, i, j) - most);
        for (Index j = 0; j < inner; ++j) r(by_row, i, j) -= most + std::log(sum);
      }
    }
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j) {
        T& x = a.out(n, i, j);
        x = std::exp(a.clip > 0 ? std::clamp(x, -a.clip, a.clip) : x);
      }
  }
}

template <class T>
void sum_blocks(const SumBlocksArgs<T>& a) {
  for (Index b = 0; b < a.out.shape[0]; ++b)
    for (Index h = 0; h < a.out.shape[1]; ++h)
      for (Index c = 0; c < a.out.shape[2]; ++c) {
        T sum = 0;
        for (Index i = 0; i < a.block; ++i) sum += a.x(b * a.block + i, h, c);
        a.out(b, h, c) = sum;
      }
}

template <class T>
void mix_blocks(const MixBlocksArgs<T>& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  const Index blocks = tokens / a.block;
  for (Index b = 0; b < blocks; ++b)
    for (Index h = 0; h < heads; ++h) {
      T row = a.weights ? T(0) : T(1);
      for (Index l = 0; a.weights && l < blocks; ++l) row += a.weights(h, b, l);
      for (Index i = 0; i < a.block; ++i)
        for (Index c = 0; c < dim; ++c) {
          T sum = 0;
          for (Index l = 0; l < blocks; ++l)
            sum += (a.separate_sums ? row : a.weights(h, b, l)) * a.x(l * a.block + i, h, c);
          a.out(b * a.block + i, h, c) = sum;
        }
    }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
