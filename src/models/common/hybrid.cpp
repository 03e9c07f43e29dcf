// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hybrid.hpp"

namespace ashlar {
inline namespace v0 {

template class HybridBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
