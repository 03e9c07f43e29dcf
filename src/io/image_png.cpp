// SPDX-License-Identifier: Apache-2.0
#include <png.h>

#include <bit>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>

#include "src/io/image_codec.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

// The most that deflate can make of a byte.
constexpr std::uint64_t kInflation = 1032;

void remember_error(png_structp png, png_const_charp message) {
  auto* error = static_cast<CodecError*>(png_get_error_ptr(png));
  std::snprintf(error->text, sizeof error->text, "%s", message);
  png_longjmp(png, 1);
}
void ignore_warning(png_structp, png_const_charp) {}

class PngReader {
 public:
  explicit PngReader(std::string_view bytes) : left_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &error_, remember_error, ignore_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, &info_, nullptr);
      throw std::bad_alloc();
    }
    png_set_read_fn(png_, this, take);
  }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

  // The stages, each false when the library gave up; error() then says why.
  bool read_header() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_user_limits(png_, kImageExtent, kImageExtent);
    png_set_chunk_malloc_max(png_, 8u << 20);
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, 0);
    png_read_info(png_, info_);
    return true;
  }
  // Eight or sixteen bits, 1 to 4 channels.
  bool expand() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_expand(png_);  // palettes, fewer than 8 bits, a transparent colour
    if constexpr (std::endian::native == std::endian::little) png_set_swap(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }
  bool read_rows(png_bytepp rows) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);  // also the last chunk must be there
    return true;
  }

  const char* error() const { return error_.text; }
  Index width() const { return png_get_image_width(png_, info_); }
  Index height() const { return png_get_image_height(png_, info_); }
  Index channels() const { return png_get_channels(png_, info_); }
  int depth() const { return png_get_bit_depth(png_, info_); }
  std::size_t row_bytes() const { return png_get_rowbytes(png_, info_); }

 private:
  static void take(png_structp png, png_bytep to, std::size_t bytes) {
    auto& left = static_cast<PngReader*>(png_get_io_ptr(png))->left_;
    if (bytes > left.size()) png_error(png, "the file ends too early");
    std::memcpy(to, left.data(), bytes);
    left.remove_prefix(bytes);
  }

  std::string_view left_;
  CodecError error_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

class PngWriter {
 public:
  explicit PngWriter(std::string& out) : out_(out) {
    png_ = png_create_write_struct(PNG_LIBPNG_VER_STRING, &error_, remember_error, ignore_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_write_struct(&png_, &info_);
      throw std::bad_alloc();
    }
    png_set_write_fn(png_, this, put, [](png_structp) {});
  }
  PngWriter(const PngWriter&) = delete;
  PngWriter& operator=(const PngWriter&) = delete;
  ~PngWriter() { png_destroy_write_struct(&png_, &info_); }

  bool write(const Image& image, png_bytepp rows, int compression) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    static constexpr int kColours[] = {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                                       PNG_COLOR_TYPE_RGB_ALPHA};
    png_set_user_limits(png_, kImageExtent, kImageExtent);
    png_set_compression_level(png_, compression);
    png_set_IHDR(png_, info_, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height),
                 image.depth, kColours[image.channels - 1], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png_, info_);
    if (std::endian::native == std::endian::little && image.depth == 16) png_set_swap(png_);
    png_write_image(png_, rows);
    png_write_end(png_, nullptr);
    return true;
  }
  const char* error() const { return error_.text; }

 private:
  static void put(png_structp png, png_bytep from, std::size_t bytes) {
    bool full = false;
    try {
      static_cast<PngWriter*>(png_get_io_ptr(png))->out_.append(reinterpret_cast<const char*>(from), bytes);
    } catch (const std::bad_alloc&) {
      full = true;
    }
    if (full) png_error(png, "out of memory");
  }

  std::string& out_;
  CodecError error_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

std::vector<png_bytep> row_pointers(Image& image, std::size_t row_bytes) {
  std::vector<png_bytep> rows(static_cast<std::size_t>(image.height));
  for (std::size_t y = 0; y < rows.size(); ++y) rows[y] = image.bytes.data() + y * row_bytes;
  return rows;
}

}  // namespace

Image decode_png(std::string_view bytes, std::string_view what) {
  PngReader reader(bytes);
  const auto fail = [&] {
    throw Error("InvalidImage", concat(what, ": a PNG that is damaged: ", reader.error()));
  };
  if (!reader.read_header()) fail();
  const std::uint64_t raw = static_cast<std::uint64_t>(reader.height()) * (reader.row_bytes() + 1);
  if (raw / kInflation > bytes.size())
    throw Error("ImageTooLarge", concat(what, ": a PNG of ", bytes.size(), " bytes cannot hold ",
                                        reader.height(), " x ", reader.width(), " pixels"));
  if (!reader.expand()) fail();
  Image image = make_image(reader.height(), reader.width(), reader.channels(), reader.depth());
  std::vector<png_bytep> rows = row_pointers(image, reader.row_bytes());
  if (!reader.read_rows(rows.data())) fail();
  return image;
}

std::string encode_png(const Image& image, int compression) {
  std::string bytes;
  PngWriter writer(bytes);
  Image& readable = const_cast<Image&>(image);  // libpng takes rows to be written as mutable
  std::vector<png_bytep> rows =
      row_pointers(readable, static_cast<std::size_t>(image.width * image.channels * (image.depth / 8)));
  if (!writer.write(image, rows.data(), compression))
    throw Error("InvalidImage", concat("encode_image: libpng gave up: ", writer.error()));
  return bytes;
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
