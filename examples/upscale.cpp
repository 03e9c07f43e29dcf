// SPDX-License-Identifier: Apache-2.0
// Enlarges a picture, or cleans it, with a restoration network as its authors released it:
//   upscale in.png out.png --model SwinIR_x4.pth
#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>

#include "ashlar/io/restore_image.hpp"
#include "examples/upscale_support.hpp"

namespace {

using namespace ashlar;
namespace fs = std::filesystem;

struct Options {
  std::string in, out, model = ASHLAR_BUNDLED_UPSCALER, config, key, tile = "auto", format = "auto";
  int overlap = 16, threads = 0, quality = 95;
  bool self_ensemble = false, compare = false;
};

ImageFormat format_of(const Options& options) {
  if (options.format == "png") return ImageFormat::png;
  return options.format == "auto" ? image_format(options.out) : ImageFormat::jpeg;
}

// --config is a file, or the text itself.
std::string config_of(const Options& options) {
  return options.config.empty() || options.config.front() == '{' ? options.config : read_text(options.config);
}

// Half of the memory that is free; more than 512 MiB makes nothing faster.
Index automatic_tile(const RestorationModel<CpuExec>& model, const Image& in, const TileOptions& options) {
  const Index budget = std::min<Index>(free_memory() / 2, Index{512} << 20);
  return largest_tile(model, {in.height, in.width}, budget, options);
}

void check_output(const Options& options, const Image& in, ImageFormat format) {
  const fs::path folder = fs::path(options.out).parent_path();
  if (!folder.empty() && !fs::is_directory(folder))
    throw Error("FileUnwritable", concat("There is no folder ", folder.string(), " to write to."));
  if (format == ImageFormat::jpeg && in.has_alpha())
    throw Error("UnsupportedImage", concat(options.in, " has alpha, which a JPEG cannot keep; write a PNG."));
}

void upscale(const Options& options) {
  CpuExec exec({options.threads});
  const ImageFormat format = format_of(options);
  const Image in = read_image(options.in);
  check_output(options, in, format);
  const auto model = open_restoration_model(options.model, exec, config_of(options), options.key);

  TileOptions tiles{.overlap = options.overlap, .self_ensemble = options.self_ensemble};
  tiles.tile = options.tile == "auto" ? automatic_tile(*model, in, tiles) : std::stol(options.tile);
  const TileShape shape = tile_shape(model->info(), {in.height, in.width}, tiles);
  const bool tiled = shape.rows < in.height || shape.columns < in.width;
  if (tiled && model->info().global)
    std::fprintf(stderr, "note: a part of %s looks at the whole picture, and sees a tile at a time\n",
                 model->info().architecture.c_str());

  const auto start = std::chrono::steady_clock::now();
  ProgressBar bar(model->info().architecture);
  tiles.progress = std::ref(bar);
  Image out = restore_image(*model, in, tiles, exec);
  const double seconds = seconds_since(start);

  const ImageWriteOptions writing{.format = format, .jpeg_quality = options.quality};
  const auto write = [&](const std::string& path, const Image& image) {
    write_image(path, format == ImageFormat::jpeg ? with_8_bits(image) : image, writing);
  };
  write(options.out, out);
  const Index scale = model->scale();
  const double pixels = static_cast<double>(out.height * out.width) / 1e6;
  std::printf("%s: %td x %td to %td x %td by %s x%td", options.out.c_str(), in.width, in.height, out.width,
              out.height, model->info().architecture.c_str(), scale);
  if (tiled) std::printf(", tiles of %td x %td overlapping by %td", shape.columns, shape.rows, shape.overlap);
  std::printf("\n%.2f s, %.3f megapixels/s of the result (%d threads), peak memory %.0f MB\n", seconds,
              pixels / seconds, exec.threads(), peak_megabytes());

  if (options.compare) {
    const fs::path file(options.out);
    const std::string path =
        (file.parent_path() / file.stem()).string() + "-compare" + file.extension().string();
    std::vector<Image> pictures{resize_image(in, scale, Enlargement::nearest, exec)};
    if (scale > 1) pictures.push_back(resize_image(in, scale, Enlargement::bicubic, exec));
    pictures.push_back(std::move(out));
    write(path, side_by_side(pictures));
    std::printf("%s: the input%s and the result\n", path.c_str(), scale > 1 ? ", bicubic enlargement" : "");
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Enlarges or cleans a picture (PNG or JPEG; gray, RGB, with alpha; 8 or 16 bits) with a network.");
  app.add_option("IN", options.in, "the picture")->required();
  app.add_option("OUT", options.out, "where the result goes: .png or .jpg")->required();
  app.add_option("--model", options.model, "checkpoint: .pth, .safetensors, or a Hugging Face directory")
      ->capture_default_str();
  app.add_option(
      "--config", options.config,
      "settings that a checkpoint does not tell: a JSON file, or the text itself, as {\"img_range\": 255}");
  app.add_option("--key", options.key, "dictionary inside of a .pth, as params; empty: found by rule");
  app.add_option("--tile", options.tile,
                 "side of a tile in pixels of the input, or auto: what half of the free memory "
                 "holds, 512 MiB at most")
      ->capture_default_str()
      ->check([](const std::string& s) {
        const bool number = !s.empty() && s.size() < 10 && s.find_first_not_of("0123456789") == s.npos;
        return s == "auto" || (number && s != "0") ? std::string() : "expected auto or a number from 1";
      });
  app.add_option("--overlap", options.overlap, "pixels of the input that tiles share, blended")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  app.add_flag("--self-ensemble", options.self_ensemble,
               "the mean over 8 rotations and reflections: 8 times as long");
  app.add_flag("--compare", options.compare,
               "also writes OUT-compare: input, bicubic and result side by side");
  app.add_option("--format", options.format, "of the result, if its name does not tell")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "png", "jpg", "jpeg"}));
  app.add_option("--quality", options.quality, "of a JPEG")->capture_default_str()->check(CLI::Range(1, 100));
  app.add_option("--threads", options.threads, "0: one a physical core")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  try {
    app.parse(argc, argv);
    upscale(options);
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "upscale: %s\n", e.what());
    return 1;
  }
}
