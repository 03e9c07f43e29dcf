// SPDX-License-Identifier: Apache-2.0
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
// After the two above, whose names it uses.
#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>

#include "src/io/image_codec.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

// Pixels that a byte can hold, generously: a block of 64 has a bit at least, and sampling may spread it.
constexpr std::uint64_t kPixelsPerByte = 1024;
constexpr int kScansMost = 500;  // of a progressive file

struct JpegError {
  jpeg_error_mgr manager{};
  std::jmp_buf jump;
  CodecError error;
};

void remember_error(j_common_ptr codec) {
  auto* e = reinterpret_cast<JpegError*>(codec->err);
  char message[JMSG_LENGTH_MAX];
  codec->err->format_message(codec, message);
  std::snprintf(e->error.text, sizeof e->error.text, "%s", message);
  std::longjmp(e->jump, 1);
}

// What the library only warns of, filling the rest with gray, is a damaged picture here; bytes between
// markers are not.
void on_message(j_common_ptr codec, int level) {
  if (level >= 0 || codec->err->msg_code == JWRN_EXTRANEOUS_DATA || codec->err->msg_code == JWRN_JFIF_MAJOR ||
      codec->err->msg_code == JWRN_ADOBE_XFORM)
    return;
  remember_error(codec);
}

void watch_scans(j_common_ptr codec) {
  if (reinterpret_cast<j_decompress_ptr>(codec)->input_scan_number > kScansMost) {
    codec->err->msg_code = JERR_BAD_PROGRESSION;
    remember_error(codec);
  }
}

void init(JpegError& e) {
  jpeg_std_error(&e.manager);
  e.manager.error_exit = remember_error;
  e.manager.emit_message = on_message;
  e.manager.output_message = [](j_common_ptr) {};
}

class JpegReader {
 public:
  explicit JpegReader(std::string_view bytes) : bytes_(bytes) {
    init(error_);
    codec_.err = &error_.manager;
    progress_.progress_monitor = watch_scans;
  }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&codec_); }

  bool read_header() {
    if (setjmp(error_.jump) != 0) return false;
    jpeg_create_decompress(&codec_);
    codec_.progress = &progress_;
    jpeg_mem_src(&codec_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
    jpeg_save_markers(&codec_, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&codec_, TRUE);
    return true;
  }
  bool start(bool gray) {
    if (setjmp(error_.jump) != 0) return false;
    codec_.out_color_space = gray ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&codec_);
    return true;
  }
  bool read_rows(std::uint8_t* to, std::size_t row_bytes) {
    if (setjmp(error_.jump) != 0) return false;
    while (codec_.output_scanline < codec_.output_height) {
      JSAMPROW row = to + codec_.output_scanline * row_bytes;
      jpeg_read_scanlines(&codec_, &row, 1);
    }
    jpeg_finish_decompress(&codec_);
    return true;
  }

  const char* error() const { return error_.error.text; }
  const jpeg_decompress_struct& codec() const { return codec_; }
  int orientation() const {
    for (const jpeg_marker_struct* m = codec_.marker_list; m != nullptr; m = m->next) {
      const std::string_view block(reinterpret_cast<const char*>(m->data), m->data_length);
      if (block.starts_with("Exif")) return exif_orientation(block);
    }
    return 1;
  }

 private:
  std::string_view bytes_;
  JpegError error_;
  jpeg_progress_mgr progress_{};
  jpeg_decompress_struct codec_{};
};

class JpegWriter {
 public:
  JpegWriter() {
    init(error_);
    codec_.err = &error_.manager;
  }
  JpegWriter(const JpegWriter&) = delete;
  JpegWriter& operator=(const JpegWriter&) = delete;
  ~JpegWriter() {
    jpeg_destroy_compress(&codec_);
    std::free(buffer_);
  }

  bool write(const Image& image, int quality) {
    if (setjmp(error_.jump) != 0) return false;
    jpeg_create_compress(&codec_);
    jpeg_mem_dest(&codec_, &buffer_, &size_);
    codec_.image_width = static_cast<JDIMENSION>(image.width);
    codec_.image_height = static_cast<JDIMENSION>(image.height);
    codec_.input_components = static_cast<int>(image.channels);
    codec_.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&codec_);
    jpeg_set_quality(&codec_, quality, TRUE);
    codec_.optimize_coding = TRUE;
    if (quality >= 90) codec_.comp_info[0].h_samp_factor = codec_.comp_info[0].v_samp_factor = 1;
    jpeg_start_compress(&codec_, TRUE);
    const std::size_t row_bytes = static_cast<std::size_t>(image.width * image.channels);
    while (codec_.next_scanline < codec_.image_height) {
      JSAMPROW row = const_cast<JSAMPROW>(image.bytes.data() + codec_.next_scanline * row_bytes);
      jpeg_write_scanlines(&codec_, &row, 1);
    }
    jpeg_finish_compress(&codec_);
    return true;
  }
  std::string bytes() const { return {reinterpret_cast<const char*>(buffer_), size_}; }
  const char* error() const { return error_.error.text; }

 private:
  JpegError error_;
  unsigned char* buffer_ = nullptr;
  unsigned long size_ = 0;
  jpeg_compress_struct codec_{};
};

}  // namespace

Image decode_jpeg(std::string_view bytes, std::string_view what) {
  JpegReader reader(bytes);
  const auto fail = [&] {
    throw Error("InvalidImage", concat(what, ": a JPEG that is damaged: ", reader.error()));
  };
  if (!reader.read_header()) fail();
  const auto& codec = reader.codec();
  const Index height = codec.image_height, width = codec.image_width;
  const J_COLOR_SPACE space = codec.jpeg_color_space;
  if (space != JCS_GRAYSCALE && space != JCS_RGB && space != JCS_YCbCr)
    throw Error("UnsupportedImage",
                concat(what, ": a JPEG of ", space == JCS_CMYK || space == JCS_YCCK ? "CMYK" : "unknown",
                       " colours, expected gray or RGB; convert it first"));
  if (static_cast<std::uint64_t>(height * width) / kPixelsPerByte > bytes.size())
    throw Error("ImageTooLarge", concat(what, ": a JPEG of ", bytes.size(), " bytes cannot hold ", height,
                                        " x ", width, " pixels"));
  const bool gray = space == JCS_GRAYSCALE;
  const int orientation = reader.orientation();  // the library forgets it at the end
  if (!reader.start(gray)) fail();
  Image image = make_image(height, width, gray ? 1 : 3, 8);
  if (!reader.read_rows(image.bytes.data(), static_cast<std::size_t>(width * image.channels))) fail();
  return upright(std::move(image), orientation);
}

std::string encode_jpeg(const Image& image, int quality) {
  if (std::max(image.height, image.width) > JPEG_MAX_DIMENSION)
    throw Error("UnsupportedImage",
                concat("encode_image: a JPEG has at most ", Index{JPEG_MAX_DIMENSION},
                       " rows and columns, and the image ", image.height, " x ", image.width));
  JpegWriter writer;
  if (!writer.write(image, quality))
    throw Error("InvalidImage", concat("encode_image: libjpeg gave up: ", writer.error()));
  return writer.bytes();
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
