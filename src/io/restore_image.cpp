// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/restore_image.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "ashlar/core/tensor.hpp"
#include "ashlar/io/checkpoint.hpp"
#include "ashlar/io/huggingface.hpp"
#include "ashlar/io/pth.hpp"
#include "ashlar/io/safetensors.hpp"
#include "ashlar/ops/resize.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// Some rows and columns of some channels of a picture as floats, [h, w, channels of out].
void read_part(const Image& image, Index y, Index x, Index first, View<float, 3> out) {
  const Index row_bytes = image.width * image.channels * (image.depth / 8);
  const Index pixel_bytes = image.channels * (image.depth / 8);
  Image row{.height = 1, .width = out.shape[1], .channels = image.channels, .depth = image.depth};
  for (Index i = 0; i < out.shape[0]; ++i) {
    const auto begin = image.bytes.begin() + (y + i) * row_bytes + x * pixel_bytes;
    row.bytes.assign(begin, begin + out.shape[1] * pixel_bytes);
    image_to_floats(row, first, out.slice(0, i, i + 1));
  }
}

// The inverse, into whole rows from row y on.
void write_rows(View<const float, 3> rows, Index y, Index first, Image& image) {
  const Index row_bytes = image.width * image.channels * (image.depth / 8);
  Image part{.height = rows.shape[0], .width = image.width, .channels = image.channels, .depth = image.depth};
  const auto begin = image.bytes.begin() + y * row_bytes;
  part.bytes.assign(begin, begin + rows.shape[0] * row_bytes);
  floats_to_image(rows, first, part);
  std::copy(part.bytes.begin(), part.bytes.end(), begin);
}

// Channels [first, first + count) enlarged, a band of rows at a time.
void enlarge(const Image& image, Index scale, Enlargement how, Index first, Index count, Image& into,
             CpuExec& exec) {
  constexpr Index kBand = 32, kMargin = 4;  // rows; the kernel reaches two
  Tensor<float, 1> in({(kBand + 2 * kMargin) * image.width * count});
  Tensor<float, 1> out({(kBand + 2 * kMargin) * scale * image.width * scale * count});
  for (Index y = 0; y < image.height; y += kBand) {
    const Index begin = std::max<Index>(y - kMargin, 0), rows = std::min(kBand, image.height - y);
    const Index end = std::min(y + rows + kMargin, image.height);
    const View<float, 4> from{in.data(), {1, end - begin, image.width, count}};
    const View<float, 4> to{out.data(), {1, (end - begin) * scale, image.width * scale, count}};
    read_part(image, begin, 0, first, from[0]);
    const bool bicubic = how == Enlargement::bicubic;
    resize(Resize{.x = from,
                  .out = to,
                  .mode = bicubic ? ResizeMode::bicubic : ResizeMode::nearest,
                  .antialias = bicubic},
           exec);
    write_rows(to[0].slice(0, (y - begin) * scale, (y - begin + rows) * scale), y * scale, first, into);
  }
}

}  // namespace

std::unique_ptr<RestorationModel<CpuExec>> open_restoration_model(const std::string& path, CpuExec& exec,
                                                                  std::string_view config,
                                                                  std::string_view level) {
  Value said;
  std::shared_ptr<const Parameters> parameters;
  if (std::filesystem::is_directory(path)) {
    const HuggingFaceModel files = load_huggingface(path);
    said = files.config, parameters = files.parameters;
  } else if (path.ends_with(".safetensors")) {
    const auto file = std::make_shared<const SafetensorsFile>(path);
    const auto found = file->metadata().find("config");
    if (found != file->metadata().end()) said = parse_config(found->second, concat("config of ", path));
    parameters = file;
  } else {
    parameters = level.empty() ? open_checkpoint(path) : PthFile(path).parameters(level);
  }
  if (!config.empty()) said = parse_config(config, "config");
  return load_restoration_model(said, *parameters, exec);
}

Image resize_image(const Image& image, Index scale, Enlargement how, CpuExec& exec) {
  if (scale < 1) refuse("resize_image", "a scale of ", scale, ", expected at least 1");
  Image out = make_image(image.height * scale, image.width * scale, image.channels, image.depth);
  enlarge(image, scale, how, 0, image.channels, out, exec);
  return out;
}

Image restore_image(const RestorationModel<CpuExec>& model, const Image& image, const TileOptions& options,
                    CpuExec& exec) {
  const RestorationInfo& info = model.info();
  if (info.in_channels != info.out_channels || (info.in_channels != 1 && info.in_channels != 3))
    refuse("restore_image", "the model makes ", info.out_channels, " channels of ", info.in_channels,
           ", expected 1 or 3 of as many");
  Image out = make_image(image.height * info.scale, image.width * info.scale, image.channels, image.depth);
  const Index colours = image.colours();
  const bool alone = colours == 3 && info.in_channels == 1, tripled = colours == 1 && info.in_channels == 3;
  const Index images = alone ? 3 : 1;
  const auto read = [&](Index y, Index x, View<float, 4> tile) {
    for (Index n = 0; n < images; ++n) read_part(image, y, x, n, tripled ? tile[n].slice(2, 0, 1) : tile[n]);
    if (!tripled) return;
    for (Index i = 0; i < tile.shape[1]; ++i)
      for (Index j = 0; j < tile.shape[2]; ++j) tile(0, i, j, 1) = tile(0, i, j, 2) = tile(0, i, j, 0);
  };
  Tensor<float, 1> mean;
  const auto write = [&](Index y, View<const float, 4> rows) {
    if (!tripled) {
      for (Index n = 0; n < images; ++n) write_rows(rows[n], y, n, out);
      return;
    }
    if (mean.size() < rows.shape[1] * rows.shape[2]) mean = Tensor<float, 1>({rows.shape[1] * rows.shape[2]});
    const View<float, 3> gray{mean.data(), {rows.shape[1], rows.shape[2], 1}};
    for (Index i = 0; i < rows.shape[1]; ++i)
      for (Index j = 0; j < rows.shape[2]; ++j)
        gray(i, j, 0) = (rows(0, i, j, 0) + rows(0, i, j, 1) + rows(0, i, j, 2)) / 3;
    write_rows(gray, y, 0, out);
  };
  restore_tiled(model, {images, image.height, image.width}, read, write, options, exec);
  if (image.has_alpha()) enlarge(image, info.scale, Enlargement::bicubic, colours, 1, out, exec);
  return out;
}

double psnr(const Image& a, const Image& b) {
  if (a.height != b.height || a.width != b.width || a.channels != b.channels)
    refuse("psnr", "the pictures are ", a.height, " x ", a.width, " x ", a.channels, " and ", b.height, " x ",
           b.width, " x ", b.channels);
  double sum = 0;
  Tensor<float, 3> x({1, a.width, a.channels}), y({1, a.width, a.channels});
  for (Index row = 0; row < a.height; ++row) {
    read_part(a, row, 0, 0, x.view());
    read_part(b, row, 0, 0, y.view());
    for (Index i = 0; i < x.size(); ++i) {
      const double d = static_cast<double>(x.data()[i]) - static_cast<double>(y.data()[i]);
      sum += d * d;
    }
  }
  if (sum == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(static_cast<double>(a.height * a.width * a.channels) / sum);
}

}  // namespace v0
}  // namespace ashlar
