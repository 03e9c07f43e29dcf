// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace ashlar {
inline namespace v0 {

// Physical cores that this process may run on: the affinity mask with hyper-threads counted once, limited by
// the container's CPU quota. At least 1.
int physical_cores();

}  // namespace v0
}  // namespace ashlar
