// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"

namespace ashlar {
inline namespace v0 {

// A sequence of any length as r tokens, each a sum over the sequence with weights that belong to positions
// (Linformer; Wang et al., 2020): for each of N packed sequences of L tokens
//   out[n r + m, h] = sum_{l < L} weight[h or 0, l, m] x_n[l, h]
// 2 L r H D flops a sequence; zeros from an empty one. Refused: shapes that differ, sequences beyond the
// weights' positions. `out` must not overlap `x`. Backward needs x and weight.
template <class T>
struct LengthProjectionArgs {
  View<const T, 3> x;       // [T, H, D]
  View<const T, 3> weight;  // [H or 1, positions, r]
  Offsets offsets;
  View<T, 3> out;  // [N r, H, D]
};
using LengthProjection = LengthProjectionArgs<float>;

void length_projection(const LengthProjection& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
