// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// out[n, c] = the sum over an image's pixels of x, or with `square` of (x - centre[n, c])^2; an empty centre
// is 0. In parts that depend on the shape alone, each by one thread. x [N, H, W, C] with H W > 0.
void channel_sums(View<const float, 4> x, bool square, View<const float, 2> centre, View<float, 2> out,
                  CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
