// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// h = keep h + scale x; both 1: the plain residual connection. Refused: shapes that differ. The backward of
// both is the gradient of h, times its factor.
template <class T>
struct ResidualAddArgs {
  View<const T, 2> x;  // [T, D]
  View<T, 2> h;        // [T, D]
  T scale = 1, keep = 1;
};
using ResidualAdd = ResidualAddArgs<float>;

void residual_add(const ResidualAdd& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
