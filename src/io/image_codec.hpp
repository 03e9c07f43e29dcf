// SPDX-License-Identifier: Apache-2.0
// The two formats behind io/image.hpp. Both libraries are C and leave by longjmp: every function that calls
// them between setjmp and its end has only trivial objects of its own, and what must be destroyed belongs to
// its caller.
#pragma once
#include <string>
#include <string_view>

#include "ashlar/io/image.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

inline constexpr Index kImageExtent = Index{1} << 20;

// `bytes` are those of the file, `what` what messages call it.
Image decode_png(std::string_view bytes, std::string_view what);
Image decode_jpeg(std::string_view bytes, std::string_view what);
std::string encode_png(const Image& image, int compression);
std::string encode_jpeg(const Image& image, int quality);

// The orientation, 1 to 8, that the EXIF block of a JPEG states; 1 when it states none.
int exif_orientation(std::string_view exif);
// Turns and mirrors an image of this orientation so that its first row is the top.
Image upright(Image image, int orientation);

// What ends in longjmp leaves its sentence here.
struct CodecError {
  char text[256] = {};
};

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
