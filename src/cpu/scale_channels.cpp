// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/scale_channels.hpp"

namespace ashlar {
inline namespace v0 {

void scale_channels(const ScaleChannels& a, CpuExec&) { ref::scale_channels(a); }
void dynamic_relu(const DynamicRelu& a, CpuExec&) { ref::dynamic_relu(a); }

}  // namespace v0
}  // namespace ashlar
