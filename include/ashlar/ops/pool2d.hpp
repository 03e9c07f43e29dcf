// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

enum class PoolMode : std::uint8_t { average, max };

struct Pool2dWindow {
  std::array<Index, 2> kernel{2, 2}, stride{2, 2}, padding{0, 0};
  bool ceil_mode = false;          // an incomplete last window counts
  bool count_include_pad = false;  // average: padding counts as zeros
};

// The number of outputs along an axis, by torch's rule: with ceil_mode a last window that would begin beyond
// the image and its padding in front is left out.
inline Index pool2d_extent(Index in, Index kernel, Index stride, Index padding, bool ceil_mode) {
  const Index room = in + 2 * padding - kernel;
  if (room < 0) return ceil_mode && in > 0 && room + stride > 0 ? 1 : 0;
  const Index out = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  return ceil_mode && (out - 1) * stride >= in + padding ? out - 1 : out;
}

// The mean, or the maximum, of each window of pixels, channels independent. max ignores the padding. average
// divides by the number of the window's pixels inside the image, or with count_include_pad inside the image
// and its padding (what ceil_mode adds beyond that never counts). A 1-D pool of tokens [T, C] is that of the
// image [1, T, 1, C]. Refused: shapes that differ, a padding of more than half a kernel. `out` must not
// overlap `x`. Backward needs x for max.
template <class T>
struct Pool2dArgs {
  View<const T, 4> x;  // [N, H, W, C]
  View<T, 4> out;      // [N, H', W', C], H' = pool2d_extent(H, ...)
  PoolMode mode = PoolMode::average;
  Pool2dWindow window;
};
using Pool2d = Pool2dArgs<float>;

void pool2d(const Pool2d& args, CpuExec& exec);

// The same with windows chosen by out's size: cell i of o along an axis of n covers [floor(i n / o), ceil((i
// + 1) n / o)), so that cells may overlap. o = 1 is the global pool. Refused: shapes that differ, an empty
// image.
template <class T>
struct AdaptivePool2dArgs {
  View<const T, 4> x;  // [N, H, W, C]
  View<T, 4> out;      // [N, H', W', C]
  PoolMode mode = PoolMode::average;
};
using AdaptivePool2d = AdaptivePool2dArgs<float>;

void adaptive_pool2d(const AdaptivePool2d& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
