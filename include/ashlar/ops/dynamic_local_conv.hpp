// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// A depthwise convolution whose kernel is another one at each pixel, shared by the channels of a group
// (involution: Li et al., 2021; dynamic local attention of DLGSANet: Li et al., 2023):
//   out[n, h, w, c] = sum over r, s of kernels[n, h, w, r kw + s, c / (C / G)]
//                                      x[n, first_row + h + r - kh / 2, w + s - kw / 2, c]
// with zeros outside the image. Nothing is normalised: with softmax(q . k) of the neighbourhood as kernels it
// is the value step of neighbourhood attention. `out` and `kernels` may be of some rows of the image, from
// first_row on: the kernels of a whole image, kh kw G floats a pixel, need not be in memory at once. Images
// may be slices of wider ones. Refused: shapes that differ, even kernel extents, groups that do not divide
// the channels, rows outside the image. `out` must not overlap `x` or `kernels`. Backward needs x and
// kernels.
template <class T>
struct DynamicLocalConvArgs {
  View<const T, 4> x;        // [N, H, W, C]
  View<const T, 5> kernels;  // [N, H', W, kh * kw, G]: for each tap the groups, contiguous
  View<T, 4> out;            // [N, H', W, C]
  std::array<Index, 2> kernel{3, 3};
  Index first_row = 0;
};
using DynamicLocalConv = DynamicLocalConvArgs<float>;

void dynamic_local_conv(const DynamicLocalConv& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
