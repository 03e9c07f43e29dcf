// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <limits>

#include "ashlar/ops/pool2d.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// Pixels [begin, end) of an axis, and by how many a mean divides along it.
struct PoolSpan {
  Index begin, end, count;
};

inline PoolSpan pool_span(Index i, Index in, Index kernel, Index stride, Index padding, bool include_pad) {
  const Index begin = i * stride - padding, end = begin + kernel;
  const Index first = std::max<Index>(begin, 0), last = std::min(end, in);
  return {first, last, include_pad ? std::min(end, in + padding) - begin : last - first};
}

inline PoolSpan adaptive_span(Index i, Index in, Index out) {
  const Index begin = i * in / out, end = ((i + 1) * in + out - 1) / out;
  return {begin, end, end - begin};
}

template <class T>
T pooled(const View<const T, 4>& x, Index n, const PoolSpan& rows, const PoolSpan& columns, Index c,
         PoolMode mode) {
  T sum = 0, most = -std::numeric_limits<T>::infinity();
  for (Index i = rows.begin; i < rows.end; ++i)
    for (Index j = columns.begin; j < columns.end; ++j)
      sum += x(n, i, j, c), most = std::max(most, x(n, i, j, c));
  return mode == PoolMode::max ? most : sum / T(rows.count * columns.count);
}

template <class T>
void pool2d(const Pool2dArgs<T>& a) {
  const auto& w = a.window;
  const auto span = [&](Index i, int axis) {
    return pool_span(i, a.x.shape[1 + axis], w.kernel[axis], w.stride[axis], w.padding[axis],
                     w.count_include_pad);
  };
  for (Index n = 0; n < a.out.shape[0]; ++n)
    for (Index i = 0; i < a.out.shape[1]; ++i)
      for (Index j = 0; j < a.out.shape[2]; ++j)
        for (Index c = 0; c < a.out.shape[3]; ++c)
          a.out(n, i, j, c) = pooled(a.x, n, span(i, 0), span(j, 1), c, a.mode);
}

template <class T>
void adaptive_pool2d(const AdaptivePool2dArgs<T>& a) {
  for (Index n = 0; n < a.out.shape[0]; ++n)
    for (Index i = 0; i < a.out.shape[1]; ++i)
      for (Index j = 0; j < a.out.shape[2]; ++j)
        for (Index c = 0; c < a.out.shape[3]; ++c)
          a.out(n, i, j, c) = pooled(a.x, n, adaptive_span(i, a.x.shape[1], a.out.shape[1]),
                                     adaptive_span(j, a.x.shape[2], a.out.shape[2]), c, a.mode);
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
