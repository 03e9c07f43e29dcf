// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/pixel_shuffle.hpp"

namespace ashlar {
inline namespace v0 {

void pixel_shuffle(const PixelShuffle& a, CpuExec&) { ref::pixel_shuffle(a); }
void pixel_unshuffle(const PixelShuffle& a, CpuExec&) { ref::pixel_unshuffle(a); }
void channel_shuffle(const ChannelShuffle& a, CpuExec&) { ref::channel_shuffle(a); }

}  // namespace v0
}  // namespace ashlar
