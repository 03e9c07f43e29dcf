// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/core/view.hpp"
#include "ashlar/io/mapped_file.hpp"

namespace ashlar {
inline namespace v0 {

// A picture as a file has it: rows from the top, channels last, packed. Samples are what the file says, with
// no colour management: gamma and colour profiles are neither applied nor kept.
struct Image {
  Index height = 0, width = 0;
  Index channels = 3;  // 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha
  int depth = 8;       // bits a sample: 8 or 16
  std::vector<std::uint8_t>
      bytes;  // height * width * channels samples; those of 16 bits in the machine's order

  bool has_alpha() const { return channels == 2 || channels == 4; }
  Index colours() const { return has_alpha() ? channels - 1 : channels; }
};

enum class ImageFormat { by_name, png, jpeg };  // by_name: .png, .jpg, .jpeg

// png or jpeg, by the end of a file's name. Refused: names that tell neither.
ImageFormat image_format(const std::string& path);

struct ImageWriteOptions {
  ImageFormat format = ImageFormat::by_name;
  int jpeg_quality = 95;    // 1 to 100; from 90 on, colour is kept at full resolution
  int png_compression = 6;  // 0 to 9
};

// A PNG (any colour type, depth and interlacing: palettes become RGB, fewer than 8 bits become 8, a
// transparent colour becomes alpha) or a baseline or progressive JPEG of 8 bits (gray, RGB). A JPEG is turned
// as its EXIF orientation says; a PNG's is not looked at. Error kinds: InvalidImage for a file that is
// damaged, truncated or neither; ImageTooLarge for one whose header promises more pixels than its bytes can
// hold, before those are allocated, or extents beyond 2^20; UnsupportedImage for CMYK.
Image read_image(const std::string& path);
Image decode_image(const MappedFile& file);

// Error("UnsupportedImage") for a JPEG of 16 bits or with alpha. The file appears under its name when it is
// complete; after an Error("FileUnwritable") an old one is as it was.
void write_image(const std::string& path, const Image& image, const ImageWriteOptions& options = {});
std::string encode_image(const Image& image, ImageFormat format, const ImageWriteOptions& options = {});

// Channels [first, first + out.shape[2]) as numbers in [0, 1]: sample / (2^depth - 1). out [H, W, channels];
// image n of a batch [N, H, W, C] is batch[n].
void image_to_floats(const Image& image, Index first, View<float, 3> out);
// The inverse, into channels of an image that is there: clamped to [0, 1] and rounded to the nearest sample,
// halves up. A NaN becomes 0.
void floats_to_image(View<const float, 3> in, Index first, Image& image);
// An image with room for its samples, all 0.
Image make_image(Index height, Index width, Index channels, int depth);

}  // namespace v0
}  // namespace ashlar
