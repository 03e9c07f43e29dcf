// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "ashlar/ops/resize.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// The elements of an axis that make element i of the resized one, with their weights.
struct ResizeTaps {
  std::vector<Index> from;
  std::vector<double> weight;
};

inline double cubic_kernel(double x, double a) {
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? a * (((x - 5) * x + 8) * x - 4) : 0;
}

inline ResizeTaps resize_taps(ResizeMode mode, bool align_corners, bool antialias, double scale_factor,
                              Index in, Index out, Index i) {
  const double at = static_cast<double>(i);
  const double step = align_corners ? out > 1 ? static_cast<double>(in - 1) / static_cast<double>(out - 1) : 0
                      : scale_factor > 0 ? 1 / scale_factor
                                         : static_cast<double>(in) / static_cast<double>(out);
  const auto inside = [in](Index j) { return std::clamp<Index>(j, 0, in - 1); };
  if (mode == ResizeMode::nearest) return {{inside(static_cast<Index>(std::floor(step * at)))}, {1}};
  if (mode == ResizeMode::nearest_exact)
    return {{inside(static_cast<Index>(std::floor(step * (at + 0.5))))}, {1}};
  const bool cubic = mode == ResizeMode::bicubic;
  ResizeTaps taps;
  if (antialias) {
    const double wide = std::max(step, 1.0), support = (cubic ? 2 : 1) * wide, centre = step * (at + 0.5);
    const Index begin = std::max<Index>(static_cast<Index>(centre - support + 0.5), 0);
    const Index end = std::min(static_cast<Index>(centre + support + 0.5), in);
    double total = 0;
    for (Index j = begin; j < end; ++j) {
      const double x = (static_cast<double>(j) - centre + 0.5) / wide;
      const double weight = cubic ? cubic_kernel(x, -0.5) : std::max(1 - std::abs(x), 0.0);
      taps.from.push_back(j), taps.weight.push_back(weight);
      total += weight;
    }
    for (double& weight : taps.weight) weight /= total;
    return taps;
  }
  double source = align_corners ? step * at : step * (at + 0.5) - 0.5;
  if (!cubic) source = std::max(source, 0.0);
  const double floor = std::floor(source), t = source - floor;
  const Index k = static_cast<Index>(floor);
  if (!cubic) return {{inside(k), inside(k + 1)}, {1 - t, t}};
  for (Index j = -1; j <= 2; ++j) {
    taps.from.push_back(inside(k + j));
    taps.weight.push_back(cubic_kernel(static_cast<double>(j) - t, -0.75));
  }
  return taps;
}

template <class T>
void resize(const ResizeArgs<T>& a) {
  const auto [images, rows, columns, channels] = a.out.shape;
  std::vector<ResizeTaps> down, across;
  for (Index h = 0; h < rows; ++h)
    down.push_back(
        resize_taps(a.mode, a.align_corners, a.antialias, a.scale_factor[0], a.x.shape[1], rows, h));
  for (Index w = 0; w < columns; ++w)
    across.push_back(
        resize_taps(a.mode, a.align_corners, a.antialias, a.scale_factor[1], a.x.shape[2], columns, w));
  for (Index n = 0; n < images; ++n)
    for (Index h = 0; h < rows; ++h)
      for (Index w = 0; w < columns; ++w) {
        const ResizeTaps &i = down[static_cast<std::size_t>(h)], &j = across[static_cast<std::size_t>(w)];
        for (Index c = 0; c < channels; ++c) {
          T sum = 0;
          for (std::size_t s = 0; s < i.from.size(); ++s)
            for (std::size_t t = 0; t < j.from.size(); ++t)
              sum += T(i.weight[s] * j.weight[t]) * a.x(n, i.from[s], j.from[t], c);
          a.out(n, h, w, c) = sum;
        }
      }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
