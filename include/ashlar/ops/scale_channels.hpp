// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// Channels times a factor of each image, as squeeze-excitation and channel attention end (Hu et al., 2018;
// Zhang et al., 2018), with a residual beside it:
//   out[n, h, w, c] = factor * gate[n, c] * x[n, h, w, c] + add[n, h, w, c]
// Refused: shapes that differ. `out` may be `x` or `add`. Backward needs x and gate.
template <class T>
struct ScaleChannelsArgs {
  View<const T, 4> x;     // [N, H, W, C]
  View<const T, 2> gate;  // [N, C]
  View<T, 4> out;         // [N, H, W, C]
  T factor = 1;
  View<const T, 4> add;  // [N, H, W, C]; empty: none
};
using ScaleChannels = ScaleChannelsArgs<float>;

void scale_channels(const ScaleChannels& args, CpuExec& exec);

// Dynamic ReLU of two pieces, without intercepts (Chen et al., 2020, as Mobile-Former uses it):
//   out[n, h, w, c] = max(slopes[n, c] x, slopes[n, C + c] x),
// where the second half belongs to the second piece. Refused: shapes that differ. `out` may be `x`.
template <class T>
struct DynamicReluArgs {
  View<const T, 4> x;       // [N, H, W, C]
  View<const T, 2> slopes;  // [N, 2 C]
  View<T, 4> out;           // [N, H, W, C]
};
using DynamicRelu = DynamicReluArgs<float>;

void dynamic_relu(const DynamicRelu& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
