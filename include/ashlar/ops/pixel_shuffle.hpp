// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// How the r x r pixels of a block lie in the channels of one pixel: channel_first c r r + i r + j (torch's
// pixel_shuffle, and the order of unfolded convolution patches), pixel_first (i r + j) C + c (space to depth
// as in Swin's patch merging variants and NViT).
enum class BlockOrder : std::uint8_t { channel_first, pixel_first };

// pixel_shuffle (depth to space, Shi et al., 2016): out[n, h r + i, w r + j, c] = x[n, h, w, block(c, i, j)].
// pixel_unshuffle (space to depth) is the inverse, out[n, h, w, block(c, i, j)] = x[n, h r + i, w r + j, c];
// r is the ratio of the images' heights. Refused: extents that are not each other's multiples by r. `out`
// must not overlap `x`. The backward of one is the other.
template <class T>
struct PixelShuffleArgs {
  View<const T, 4> x;  // [N, H, W, r r C]
  View<T, 4> out;      // [N, r H, r W, C]; for pixel_unshuffle the two shapes are exchanged
  BlockOrder order = BlockOrder::channel_first;
};
using PixelShuffle = PixelShuffleArgs<float>;

void pixel_shuffle(const PixelShuffle& args, CpuExec& exec);
void pixel_unshuffle(const PixelShuffle& args, CpuExec& exec);

// out[n, h, w, k groups + q] = x[n, h, w, q (C / groups) + k] (ShuffleNet; Zhang et al., 2018): the channels
// of `groups` groups interleaved. Refused: shapes that differ, groups that do not divide the channels. `out`
// must not overlap `x`. Its backward is the shuffle with C / groups.
template <class T>
struct ChannelShuffleArgs {
  View<const T, 4> x;  // [N, H, W, C]
  View<T, 4> out;
  Index groups = 1;
};
using ChannelShuffle = ChannelShuffleArgs<float>;

void channel_shuffle(const ChannelShuffle& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
