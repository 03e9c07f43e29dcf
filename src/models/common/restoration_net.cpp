// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/restoration_net-inl.hpp"

namespace ashlar {
inline namespace v0 {

template class RestorationModel<CpuExec>;
template class RestorationNet<CpuExec>;

}  // namespace v0
}  // namespace ashlar
