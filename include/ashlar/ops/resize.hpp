// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

enum class ResizeMode : std::uint8_t { nearest, nearest_exact, bilinear, bicubic };

// The extent that torch gives an axis for a scale factor.
inline Index resized_extent(Index in, double scale_factor) {
  return static_cast<Index>(static_cast<double>(in) * scale_factor);
}

// x at out's size, by the rules of torch's interpolate; separable, channels independent. Along an axis from
// `in` to `o` elements, with a step of in / o (1 / scale_factor where that is given, since in / o differs
// from it when in scale_factor is not an integer; (in - 1) / (o - 1) with align_corners), element i comes
// from
//   nearest        floor(step i);  nearest_exact: floor(step (i + 1/2))
//   bilinear       t = max(step (i + 1/2) - 1/2, 0) between its two neighbours
//   bicubic        t = step (i + 1/2) - 1/2, four neighbours with indices clamped to the image, by the cubic
//                  convolution kernel (Keys, 1981) with a = -0.75
// and with align_corners t = step i. antialias widens the kernel by max(step, 1), takes all pixels below it
// and makes their weights sum to 1: the triangle, or the cubic with a = -0.5 (as in PIL). Weights are worked
// out in double. Refused: shapes that differ in images or channels, an empty image, antialias with
// align_corners or with nearest. `out` must not overlap `x`. Backward needs the two sizes.
template <class T>
struct ResizeArgs {
  View<const T, 4> x;  // [N, H, W, C]
  View<T, 4> out;      // [N, H', W', C]
  ResizeMode mode = ResizeMode::bilinear;
  bool align_corners = false, antialias = false;
  std::array<double, 2> scale_factor{0, 0};  // of rows and columns; 0: the ratio of the extents
};
using Resize = ResizeArgs<float>;

void resize(const Resize& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
