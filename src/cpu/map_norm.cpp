// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/map_norm.hpp"

namespace ashlar {
inline namespace v0 {

void channel_affine(const ChannelAffine& a, CpuExec&) { ref::channel_affine(a); }
void group_norm2d(const GroupNorm2d& a, CpuExec&) { ref::group_norm2d(a); }
void global_response_norm(const GlobalResponseNorm& a, CpuExec&) { ref::global_response_norm(a); }

}  // namespace v0
}  // namespace ashlar
