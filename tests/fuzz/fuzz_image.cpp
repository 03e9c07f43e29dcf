// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "ashlar/io/image.hpp"

// A file is refused, or is a picture that a PNG keeps.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace ashlar;
  try {
    const Image image =
        decode_image(MappedFile::from_bytes(std::string(reinterpret_cast<const char*>(data), size), "fuzz"));
    if (image.bytes.size() > (1u << 16)) return 0;
    const Image back = decode_image(
        MappedFile::from_bytes(encode_image(image, ImageFormat::png, {.png_compression = 1}), "png"));
    if (back.bytes != image.bytes || back.width != image.width || back.depth != image.depth) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
