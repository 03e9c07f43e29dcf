// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

// Short causal depthwise convolution over time, as linear-attention layers use it:
//   out[t, c] = activation(bias[c] + sum_{j < W} weight[c, j] * x[t - W + 1 + j, c])
// within each sequence; inputs before its first token come from its state, or are zero without one. A state
// is [W - 1, C], oldest first, its rows state_stride apart: read, then left holding the sequence's last W - 1
// inputs, so that a sequence may be cut anywhere. Refused: shapes that differ, W < 1, bad offsets, a number
// of states that is not the number of sequences, rows of a state that overlap. `out` must not overlap `x`.
// Backward needs x, weight and the incoming state.
template <class T>
struct ShortConvArgs {
  View<const T, 2> x;       // [T, C]
  View<const T, 2> weight;  // [C, W]
  View<const T, 1> bias;    // [C]; empty: none
  View<T, 2> out;           // [T, C]
  Activation activation = Activation::silu;
  Offsets offsets;
  std::span<T* const> states;  // one a sequence; empty: start from zeros, keep nothing
  Index state_stride = 0;      // 0: C, packed
};
using ShortConv = ShortConvArgs<float>;

void short_conv(const ShortConv& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
