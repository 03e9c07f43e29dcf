// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// Heads times a factor each, as the inputs dt x and the skip connection D x of a state-space layer need them:
//   out[t, h, i] = scale[t, h, i or 0] x[t, h', i] + add[t, h, i],  h' = h / (H / H')
// Factors that are the same for each token are constant_scale(...). Refused: shapes that differ, heads that
// do not divide. `out` may be `add`, or `x` where it has as many heads. Backward needs x and scale.
template <class T>
struct ScaleHeadsArgs {
  View<const T, 3> x;      // [T, H', D]
  View<const T, 3> scale;  // [T, H, 1], or [T, H, D]
  View<T, 3> out;          // [T, H, D]
  View<const T, 3> add;    // [T, H, D]; empty: none
};
using ScaleHeads = ScaleHeadsArgs<float>;

void scale_heads(const ScaleHeads& args, CpuExec& exec);

// [T, H, D] from factors [H D] for all tokens, D = 1 for one a head.
template <class T>
View<const T, 3> constant_scale(View<const T, 1> scale, Index tokens, Index dim = 1) {
  return {scale.data, {tokens, scale.shape[0] / dim, dim}, {0, dim, 1}};
}

}  // namespace v0
}  // namespace ashlar
