// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <vector>

#include "ashlar/models/restoration_model.hpp"

namespace ashlar {
inline namespace v0 {

// Runs restoration models on images of any size in memory that a tile bounds. Neighbouring tiles overlap;
// there the results are blended: the weight of the left (upper) one falls as (o - i - 1/2) / o over its last
// o pixels, and that of the right one is the rest. Tiles begin at multiples of the model's window, so that
// inside a tile its windows are those of the whole image, and the last tile of a row ends where the image
// does, so that the image's border is treated as without tiles. What differs is that a tile's pixels do not
// see beyond it.
struct TileOptions {
  Index tile = 0;      // side, in pixels of the input; rounded up to whole windows. 0: the image is one
  Index overlap = 16;  // rounded up to whole windows, and at most half of the tile
  bool self_ensemble =
      false;  // the mean over the 8 rotations and reflections of each tile (Timofte et al., 2016)
  std::function<void(Index done, Index total)> progress;  // in pixels of the tiles' input; may throw to stop
};

// The part of an axis that a tile covers.
struct TileSpan {
  Index begin = 0, end = 0;
};
// `tile` and `overlap` are multiples of the alignment, overlap at most tile / 2. Tiles begin every
// tile - overlap; the last is the first that reaches the end, and longer than the overlap.
std::vector<TileSpan> tile_spans(Index extent, Index tile, Index overlap);

// What options mean for a model and an image: the tile's size, rounded, and the overlap.
struct TileShape {
  Index rows = 0, columns = 0, overlap = 0;
};
TileShape tile_shape(const RestorationInfo& info, std::array<Index, 2> image, const TileOptions& options);

// Memory that restore_tiled takes at its peak, beside the images: an estimate, since the model's own part is.
Index tiled_bytes(const RestorationModel<CpuExec>& model, std::array<Index, 2> image,
                  const TileOptions& options);
// The largest tile for which tiled_bytes() is at most `bytes`, or the smallest one there is. 0 when the image
// may be one.
Index largest_tile(const RestorationModel<CpuExec>& model, std::array<Index, 2> image, Index bytes,
                   TileOptions options = {});

// image [N, H, W, in_channels], out [N, scale H, scale W, out_channels]: model.run() by tiles. Threads do not
// change the result.
void restore_tiled(const RestorationModel<CpuExec>& model, View<const float, 4> image, View<float, 4> out,
                   const TileOptions& options, CpuExec& exec);

// The same of images that are not held as floats: `read` fills a tile [N, h, w, in_channels] of which `y` and
// `x` are the first row and column, and `write` gets finished rows [N, h, scale W, out_channels] of the
// result from row `y` on, from the top down, each once.
using ReadTile = std::function<void(Index y, Index x, View<float, 4> tile)>;
using WriteRows = std::function<void(Index y, View<const float, 4> rows)>;
void restore_tiled(const RestorationModel<CpuExec>& model, std::array<Index, 3> images, const ReadTile& read,
                   const WriteRows& write, const TileOptions& options, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
