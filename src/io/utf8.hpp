// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <utf8proc.h>

#include <string_view>

namespace ashlar {
inline namespace v0 {
namespace detail {

// The position of the first byte that is not UTF-8; the text's size when all of it is.
inline std::size_t find_invalid_utf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const std::size_t left = text.size() - i;
    utf8proc_int32_t scalar = 0;
    const utf8proc_ssize_t n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i),
                                                static_cast<utf8proc_ssize_t>(left < 4 ? left : 4), &scalar);
    if (n <= 0) return i;
    i += static_cast<std::size_t>(n);
  }
  return i;
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
