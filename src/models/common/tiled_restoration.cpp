// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/tiled_restoration.hpp"

#include <algorithm>
#include <cstring>

#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr std::string_view kOp = "restore_tiled";

Index rounded_up(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }

void copy(View<const float, 4> from, View<float, 4> to) {
  for (Index n = 0; n < to.shape[0]; ++n)
    for (Index y = 0; y < to.shape[1]; ++y)
      for (Index x = 0; x < to.shape[2]; ++x)
        std::memcpy(to.at(n, y, x), from.at(n, y, x), static_cast<std::size_t>(to.shape[3]) * sizeof(float));
}

// One of the 8 symmetries of the square: a transpose, then reflections.
struct Symmetry {
  bool transposed = false, rows_reversed = false, columns_reversed = false;

  static Symmetry number(int k) { return {(k & 4) != 0, (k & 2) != 0, (k & 1) != 0}; }

  // `image` as a view of which element (y, x) is the turned image's.
  template <class T>
  View<T, 4> turned(View<T, 4> image) const {
    if (rows_reversed) image.data += (image.shape[1] - 1) * image.strides[1], image.strides[1] *= -1;
    if (columns_reversed) image.data += (image.shape[2] - 1) * image.strides[2], image.strides[2] *= -1;
    if (transposed) std::swap(image.shape[1], image.shape[2]), std::swap(image.strides[1], image.strides[2]);
    return image;
  }
};

// Runs one tile after the other, a row of tiles in the memory of one.
class TileRunner {
 public:
  TileRunner(const RestorationModel<CpuExec>& model, std::array<Index, 3> images, const TileOptions& options,
             CpuExec& exec)
      : model_(model), exec_(exec), options_(options), images_(images), scale_(model.scale()) {
    const TileShape shape = tile_shape(model.info(), {images[1], images[2]}, options);
    overlap_ = shape.overlap * scale_;
    rows_ = tile_spans(images[1], shape.rows, shape.overlap);
    columns_ = tile_spans(images[2], shape.columns, shape.overlap);
    const Index n = images[0], in = model.info().in_channels, out = model.info().out_channels;
    const Index pixels = n * shape.rows * shape.columns, enlarged = pixels * scale_ * scale_;
    input_ = Tensor<float, 1>({pixels * in});
    output_ = Tensor<float, 1>({enlarged * out});
    if (options.self_ensemble) {
      turned_input_ = Tensor<float, 1>({pixels * in});
      turned_output_ = Tensor<float, 1>({enlarged * out});
    }
    band_ = Tensor<float, 4>({n, shape.rows * scale_, images[2] * scale_, out});
  }

  void run(const ReadTile& read, const WriteRows& write) {
    Index total = 0, done = 0;
    for (const TileSpan& row : rows_)
      for (const TileSpan& column : columns_) total += (row.end - row.begin) * (column.end - column.begin);
    if (options_.progress) options_.progress(0, total);
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      const Index begin = rows_[r].begin, h = rows_[r].end - begin;
      for (std::size_t c = 0; c < columns_.size(); ++c) {
        const Index x = columns_[c].begin, w = columns_[c].end - x;
        const View<float, 4> in{input_.data(), {images_[0], h, w, model_.info().in_channels}};
        const View<float, 4> out{output_.data(),
                                 {images_[0], h * scale_, w * scale_, model_.info().out_channels}};
        read(begin, x, in);
        restore(in, out);
        blend(out, r, c);
        done += h * w;
        if (options_.progress) options_.progress(done, total);
      }
      const Index finished = r + 1 < rows_.size() ? rows_[r + 1].begin - begin : h;
      write(begin * scale_, band_.view().slice(1, 0, finished * scale_));
      if (r + 1 < rows_.size())  // what the next row of tiles overlaps moves to the top
        copy(band_.view().slice(1, finished * scale_, h * scale_),
             band_.view().slice(1, 0, (h - finished) * scale_));
    }
  }

 private:
  void run_model(View<const float, 4> in, View<float, 4> out) {
    for (Index n = 0; n < in.shape[0]; ++n) model_.run(in.slice(0, n, n + 1), out.slice(0, n, n + 1), exec_);
  }

  void restore(View<float, 4> in, View<float, 4> out) {
    if (!options_.self_ensemble) return run_model(in, out);
    std::fill_n(out.data, out.size(), 0.0f);
    for (int k = 0; k < 8; ++k) {
      const Symmetry symmetry = Symmetry::number(k);
      const View<float, 4> from = symmetry.turned(in), to = symmetry.turned(out);
      const View<float, 4> turned_in{turned_input_.data(), from.shape},
          turned_out{turned_output_.data(), to.shape};
      copy(from, turned_in);
      run_model(turned_in, turned_out);
      for (Index n = 0; n < to.shape[0]; ++n)
        for (Index y = 0; y < to.shape[1]; ++y)
          for (Index x = 0; x < to.shape[2]; ++x)
            for (Index c = 0; c < to.shape[3]; ++c) to(n, y, x, c) += turned_out(n, y, x, c) * 0.125f;
    }
  }

  // The weight of element i of a tile of this length that has a neighbour before it, behind it, or both.
  float weight(Index i, Index length, bool before, bool behind) const {
    float w = 1;
    if (before && i < overlap_) w = (static_cast<float>(i) + 0.5f) / static_cast<float>(overlap_);
    if (behind && i >= length - overlap_)
      w = (static_cast<float>(length - i) - 0.5f) / static_cast<float>(overlap_);
    return w;
  }

  // Adds a tile to the band: the first to write a pixel sets it.
  void blend(View<const float, 4> tile, std::size_t r, std::size_t c) {
    const bool above = r > 0, left = c > 0;
    const bool below = r + 1 < rows_.size(), right = c + 1 < columns_.size();
    const Index x0 = columns_[c].begin * scale_;
    for (Index n = 0; n < tile.shape[0]; ++n)
      for (Index y = 0; y < tile.shape[1]; ++y) {
        const float wy = weight(y, tile.shape[1], above, below);
        const bool fresh_row = !above || y >= overlap_;
        for (Index x = 0; x < tile.shape[2]; ++x) {
          const float w = wy * weight(x, tile.shape[2], left, right);
          const bool fresh = fresh_row && (!left || x >= overlap_);
          float* to = band_.view().at(n, y, x0 + x);
          const float* from = tile.at(n, y, x);
          for (Index i = 0; i < tile.shape[3]; ++i) to[i] = fresh ? w * from[i] : to[i] + w * from[i];
        }
      }
  }

  const RestorationModel<CpuExec>& model_;
  CpuExec& exec_;
  const TileOptions& options_;
  std::array<Index, 3> images_;
  Index scale_, overlap_ = 0;
  std::vector<TileSpan> rows_, columns_;
  Tensor<float, 1> input_, output_, turned_input_, turned_output_;
  Tensor<float, 4> band_;
};

}  // namespace

std::vector<TileSpan> tile_spans(Index extent, Index tile, Index overlap) {
  std::vector<TileSpan> spans;
  for (Index begin = 0;; begin += tile - overlap) {
    spans.push_back({begin, std::min(begin + tile, extent)});
    if (begin + tile >= extent) return spans;
  }
}

TileShape tile_shape(const RestorationInfo& info, std::array<Index, 2> image, const TileOptions& options) {
  if (options.tile < 0 || options.overlap < 0)
    refuse(kOp, "a tile of ", options.tile, " with an overlap of ", options.overlap,
           ", expected none below 0");
  const Index multiple = std::max<Index>(info.multiple, 1);
  const Index longest = std::max(image[0], image[1]);
  if (options.tile == 0 || options.tile >= longest) return {image[0], image[1], 0};
  const Index tile = rounded_up(std::max(options.tile, info.smallest), multiple);
  const Index overlap = std::min(rounded_up(options.overlap, multiple), tile / 2 / multiple * multiple);
  return {std::min(tile, image[0]), std::min(tile, image[1]), overlap};
}

Index tiled_bytes(const RestorationModel<CpuExec>& model, std::array<Index, 2> image,
                  const TileOptions& options) {
  const RestorationInfo& info = model.info();
  const TileShape shape = tile_shape(info, image, options);
  const Index enlarged = info.scale * info.scale * info.out_channels;
  const Index tile =
      shape.rows * shape.columns * (info.in_channels + enlarged) * (options.self_ensemble ? 2 : 1);
  const Index band = shape.rows * image[1] * enlarged;
  return model.scratch_bytes({shape.rows, shape.columns}) + (tile + band) * static_cast<Index>(sizeof(float));
}

Index largest_tile(const RestorationModel<CpuExec>& model, std::array<Index, 2> image, Index bytes,
                   TileOptions options) {
  const auto fits = [&](Index tile) {
    options.tile = tile;
    return tiled_bytes(model, image, options) <= bytes;
  };
  if (fits(0)) return 0;
  const Index multiple = std::max<Index>(model.info().multiple, 1);
  Index low = std::max<Index>(rounded_up(model.info().smallest, multiple) / multiple, 1);
  Index high = std::max(image[0], image[1]) / multiple + 1;  // does not fit, or is the whole image
  while (high - low > 1) {
    const Index middle = low + (high - low) / 2;
    (fits(middle * multiple) ? low : high) = middle;
  }
  return low * multiple;
}

void restore_tiled(const RestorationModel<CpuExec>& model, std::array<Index, 3> images, const ReadTile& read,
                   const WriteRows& write, const TileOptions& options, CpuExec& exec) {
  if (images[0] < 1 || images[1] < 1 || images[2] < 1)
    refuse(kOp, "the images have the shape ", to_string(images), ", expected none below 1");
  TileRunner(model, images, options, exec).run(read, write);
}

void restore_tiled(const RestorationModel<CpuExec>& model, View<const float, 4> image, View<float, 4> out,
                   const TileOptions& options, CpuExec& exec) {
  const RestorationInfo& info = model.info();
  expect_shape(kOp, "image", image, {image.shape[0], image.shape[1], image.shape[2], info.in_channels});
  expect_shape(kOp, "out", out,
               {image.shape[0], image.shape[1] * info.scale, image.shape[2] * info.scale, info.out_channels});
  restore_tiled(
      model, {image.shape[0], image.shape[1], image.shape[2]},
      [&](Index y, Index x, View<float, 4> tile) {
        copy(image.slice(1, y, y + tile.shape[1]).slice(2, x, x + tile.shape[2]), tile);
      },
      [&](Index y, View<const float, 4> rows) { copy(rows, out.slice(1, y, y + rows.shape[1])); }, options,
      exec);
}

}  // namespace v0
}  // namespace ashlar
