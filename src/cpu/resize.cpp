// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/resize.hpp"

namespace ashlar {
inline namespace v0 {

void resize(const Resize& a, CpuExec&) { ref::resize(a); }

}  // namespace v0
}  // namespace ashlar
