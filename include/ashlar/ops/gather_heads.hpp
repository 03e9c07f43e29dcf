// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// Rows of each head in an order of its own:  out[e, h, :] = x[index[e, h], h, :], zeros where the index is
// -1. Refused: shapes that differ, indices that are neither -1 nor a row of x. `out` must not overlap `x`.
// Backward adds each row of out's gradient to its row of x's.
template <class T>
struct GatherHeadsArgs {
  View<const T, 3> x;          // [S, H, D]
  View<const Index, 2> index;  // [E, H]
  View<T, 3> out;              // [E, H, D]
};
using GatherHeads = GatherHeadsArgs<float>;

void gather_heads(const GatherHeads& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
