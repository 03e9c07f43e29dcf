// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/pool2d.hpp"

namespace ashlar {
inline namespace v0 {

void pool2d(const Pool2d& a, CpuExec&) { ref::pool2d(a); }
void adaptive_pool2d(const AdaptivePool2d& a, CpuExec&) { ref::adaptive_pool2d(a); }

}  // namespace v0
}  // namespace ashlar
