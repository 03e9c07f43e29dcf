// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/image.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "src/io/image_codec.hpp"
#include "src/io/pending_file.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr std::string_view kPngMagic("\x89PNG\r\n\x1a\n", 8), kJpegMagic("\xff\xd8\xff", 3);

std::size_t byte_count(std::string_view who, const Image& image) {
  if (image.height < 1 || image.width < 1 || image.height > detail::kImageExtent ||
      image.width > detail::kImageExtent)
    refuse(who, "the image is ", image.height, " x ", image.width, ", expected 1 to ", detail::kImageExtent,
           " each");
  if (image.channels < 1 || image.channels > 4)
    refuse(who, "the image has ", image.channels, " channels, expected 1 to 4");
  if (image.depth != 8 && image.depth != 16)
    refuse(who, "the image has ", image.depth, " bits a sample, expected 8 or 16");
  return static_cast<std::size_t>(image.height * image.width * image.channels * (image.depth / 8));
}

void check(std::string_view who, const Image& image) {
  if (const std::size_t want = byte_count(who, image); image.bytes.size() != want)
    refuse(who, "the image has ", image.bytes.size(), " bytes, expected ", want);
}

template <class V>
void check_channels(std::string_view who, const Image& image, Index first, const V& view) {
  check(who, image);
  if (first < 0 || view.shape[2] < 0 || first > image.channels - view.shape[2])
    refuse(who, "channels ", first, " to ", first + view.shape[2], " of an image that has ", image.channels);
  expect_shape(who, "the view", view, {image.height, image.width, view.shape[2]});
}

template <class Sample>
void to_floats(const Image& image, Index first, View<float, 3> out) {
  constexpr float most = static_cast<Sample>(-1);
  const std::uint8_t* from = image.bytes.data() + first * static_cast<Index>(sizeof(Sample));
  for (Index y = 0; y < image.height; ++y)
    for (Index x = 0; x < image.width; ++x, from += image.channels * static_cast<Index>(sizeof(Sample)))
      for (Index c = 0; c < out.shape[2]; ++c) {
        Sample s;
        std::memcpy(&s, from + c * static_cast<Index>(sizeof(Sample)), sizeof(Sample));
        out(y, x, c) = static_cast<float>(s) / most;
      }
}

template <class Sample>
void from_floats(View<const float, 3> in, Index first, Image& image) {
  constexpr float most = static_cast<Sample>(-1);
  std::uint8_t* to = image.bytes.data() + first * static_cast<Index>(sizeof(Sample));
  for (Index y = 0; y < image.height; ++y)
    for (Index x = 0; x < image.width; ++x, to += image.channels * static_cast<Index>(sizeof(Sample)))
      for (Index c = 0; c < in.shape[2]; ++c) {
        const float v = in(y, x, c);
        const float clamped = v > 0 ? std::min(v, 1.0f) : 0.0f;  // a NaN is not above 0
        const auto s = static_cast<Sample>(clamped * most + 0.5f);
        std::memcpy(to + c * static_cast<Index>(sizeof(Sample)), &s, sizeof(Sample));
      }
}

}  // namespace

ImageFormat image_format(const std::string& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  for (char& c : extension) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (extension == ".png") return ImageFormat::png;
  if (extension == ".jpg" || extension == ".jpeg") return ImageFormat::jpeg;
  refuse("image_format", "the name \"", path,
         "\" ends in none of .png, .jpg, .jpeg, and no format was given");
}

Image make_image(Index height, Index width, Index channels, int depth) {
  Image image{.height = height, .width = width, .channels = channels, .depth = depth};
  image.bytes.resize(byte_count("make_image", image));
  return image;
}

Image decode_image(const MappedFile& file) {
  const std::string what = concat("image \"", file.name(), "\"");
  // A copy, not the mapping: the decoders must not meet a file that shrinks.
  const std::string bytes = file.read(0, file.size());
  if (bytes.starts_with(kPngMagic)) return detail::decode_png(bytes, what);
  if (bytes.starts_with(kJpegMagic)) return detail::decode_jpeg(bytes, what);
  throw Error("InvalidImage", concat(what, ": neither a PNG nor a JPEG"));
}

Image read_image(const std::string& path) { return decode_image(MappedFile(path)); }

std::string encode_image(const Image& image, ImageFormat format, const ImageWriteOptions& options) {
  check("encode_image", image);
  if (options.jpeg_quality < 1 || options.jpeg_quality > 100)
    refuse("encode_image", "a JPEG quality of ", options.jpeg_quality, ", expected 1 to 100");
  if (options.png_compression < 0 || options.png_compression > 9)
    refuse("encode_image", "a PNG compression of ", options.png_compression, ", expected 0 to 9");
  if (format == ImageFormat::png) return detail::encode_png(image, options.png_compression);
  if (format != ImageFormat::jpeg) refuse("encode_image", "no format was given");
  if (image.depth != 8)
    throw Error("UnsupportedImage", "encode_image: a JPEG has 8 bits a sample, and the image 16; use PNG");
  if (image.has_alpha())
    throw Error("UnsupportedImage", "encode_image: a JPEG has no alpha, and the image has; use PNG");
  return detail::encode_jpeg(image, options.jpeg_quality);
}

void write_image(const std::string& path, const Image& image, const ImageWriteOptions& options) {
  const std::string bytes = encode_image(
      image, options.format == ImageFormat::by_name ? image_format(path) : options.format, options);
  detail::PendingFile file(path);
  file.write(bytes.data(), bytes.size());
  file.publish();
}

void image_to_floats(const Image& image, Index first, View<float, 3> out) {
  check_channels("image_to_floats", image, first, out);
  image.depth == 8 ? to_floats<std::uint8_t>(image, first, out) : to_floats<std::uint16_t>(image, first, out);
}

void floats_to_image(View<const float, 3> in, Index first, Image& image) {
  check_channels("floats_to_image", image, first, in);
  image.depth == 8 ? from_floats<std::uint8_t>(in, first, image)
                   : from_floats<std::uint16_t>(in, first, image);
}

namespace detail {

// "Exif\0\0", then a TIFF header: byte order, 42, and where the entries of 12 bytes begin.
int exif_orientation(std::string_view exif) {
  if (!exif.starts_with(std::string_view("Exif\0\0", 6))) return 1;
  exif.remove_prefix(6);
  if (exif.size() < 8 || (exif.substr(0, 2) != "II" && exif.substr(0, 2) != "MM")) return 1;
  const bool big = exif[0] == 'M';
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::size_t x = 0;
    for (std::size_t i = 0; i < bytes; ++i)
      x = x << 8 | static_cast<unsigned char>(exif[at + (big ? i : bytes - 1 - i)]);
    return x;
  };
  const std::size_t begin = number(4, 4);
  if (begin > exif.size() || exif.size() - begin < 2) return 1;
  const std::size_t entries = number(begin, 2);
  for (std::size_t i = 0; i < entries && begin + 2 + 12 * (i + 1) <= exif.size(); ++i) {
    const std::size_t at = begin + 2 + 12 * i;
    if (number(at, 2) != 0x0112 || number(at + 2, 2) != 3) continue;
    const std::size_t value = number(at + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image upright(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool transposed = orientation >= 5;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  // Where in the stored image the pixel (y, x) of the upright one is: in its own axes mirrored, then swapped.
  Image out = make_image(transposed ? image.width : image.height, transposed ? image.height : image.width,
                         image.channels, image.depth);
  const std::size_t pixel = static_cast<std::size_t>(image.channels * (image.depth / 8));
  std::uint8_t* to = out.bytes.data();
  for (Index y = 0; y < out.height; ++y)
    for (Index x = 0; x < out.width; ++x, to += pixel) {
      Index row = from_bottom ? out.height - 1 - y : y, column = from_right ? out.width - 1 - x : x;
      if (transposed) std::swap(row, column);
      std::memcpy(to, image.bytes.data() + static_cast<std::size_t>(row * image.width + column) * pixel,
                  pixel);
    }
  return out;
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
