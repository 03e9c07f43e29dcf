// SPDX-License-Identifier: Apache-2.0
// What the parts of channel_attention hand to their kernels.
#pragma once
#include "ashlar/core/index.hpp"

namespace ashlar {
inline namespace v0 {
namespace kernels {

inline constexpr Index kChannelBlock = 64;  // pixels that are packed at once

// One head's channels of some rows of an image.
struct ChannelRows {
  const float* data;
  Index row, pixel;  // steps
};

// Of some rows of a tile, with q and k scaled by powers of two that are the channel's own: gram [dim, pitch]
// of q^T k, and the sums of squares.
struct ChannelPart {
  float *gram, *q_squares, *k_squares, *q_scale, *k_scale;
  ChannelPart(float* p, Index dim, Index pitch)
      : gram(p),
        q_squares(p + dim * pitch),
        k_squares(q_squares + dim),
        q_scale(k_squares + dim),
        k_scale(q_scale + dim) {}
  static Index size(Index dim, Index pitch) { return dim * (pitch + 4); }
};

struct ChannelProducts {
  ChannelRows q, k;
  Index rows, columns, dim, pitch;
  float *part, *work;  // work [2 kChannelBlock, pitch]
};

// Pixels beside each other that the same tiles cover: out = the mean over the tiles of v weights.
struct ChannelMixture {
  const float *v, *weights;  // weights [dim, pitch] of the first tile
  float *out, *work;
  Index pixels, dim, pitch, v_pixel, out_pixel;
  Index row_tiles, column_tiles, row_step, column_step;  // and the steps from one to the next
};

}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
