// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/pad2d.hpp"

namespace ashlar {
inline namespace v0 {

void pad2d(const Pad2d& a, CpuExec&) { ref::pad2d(a); }

}  // namespace v0
}  // namespace ashlar
