// SPDX-License-Identifier: Apache-2.0
// What the parts of the tokenizer share: errors, UTF-8, character classes, typed access to the file's
// settings.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "ashlar/core/value.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {

template <class... Parts>
[[noreturn]] void invalid(const Parts&... parts) {
  throw Error("InvalidTokenizer", concat("tokenizer: ", parts...));
}
template <class... Parts>
[[noreturn]] void unsupported(const Parts&... parts) {
  throw Error("UnsupportedTokenizer", concat("tokenizer: ", parts...));
}
// The text for a message: at most 80 bytes of it.
std::string brief(std::string_view text);

// Of the n > 0 bytes at p: the length of the character they begin with (1 to 4), 0 when they are only the
// beginning of one, -k when the first k bytes can begin no character.
int utf8_step(const char* p, std::size_t n);
bool is_utf8(std::string_view text);
void append_utf8(std::string& text, char32_t c);

// The character at i of a valid text; moves i behind it.
inline char32_t next_char(std::string_view s, std::size_t& i) {
  const auto at = [&](std::size_t k) { return static_cast<unsigned char>(s[k]); };
  const unsigned b = at(i);
  if (b < 0x80) return i += 1, b;
  if (b < 0xe0) return i += 2, (b & 0x1fu) << 6 | (at(i - 1) & 0x3fu);
  if (b < 0xf0) return i += 3, (b & 0x0fu) << 12 | (at(i - 2) & 0x3fu) << 6 | (at(i - 1) & 0x3fu);
  return i += 4,
         (b & 0x07u) << 18 | (at(i - 3) & 0x3fu) << 12 | (at(i - 2) & 0x3fu) << 6 | (at(i - 1) & 0x3fu);
}
// The character that ends at i; moves i before it.
inline char32_t previous_char(std::string_view s, std::size_t& i) {
  do --i;
  while ((static_cast<unsigned char>(s[i]) & 0xc0) == 0x80);
  std::size_t at = i;
  return next_char(s, at);
}

// Bytes in pieces to valid UTF-8: U+FFFD for each part that can begin no character, an incomplete tail is
// held.
class Utf8Repair {
 public:
  void push(std::string_view bytes, std::string& out);
  void finish(std::string& out);

 private:
  char held_[4] = {};
  std::size_t size_ = 0;
};

bool is_space(char32_t c);  // White_Space
bool is_word(char32_t c);   // \w of UTS 18: alphabetic, mark, decimal number, connector, join control

// Members of a part of the file. Absent or null is `otherwise`; another type is InvalidTokenizer.
bool flag(const Value& part, std::string_view key, bool otherwise);
std::string text(const Value& part, std::string_view key, std::string_view otherwise);
std::string required_text(const Value& part, std::string_view key);
std::int64_t integer(const Value& part, std::string_view key, std::int64_t otherwise);
const Value::Array& required_array(const Value& part, std::string_view key);
// The "type" of a part; InvalidTokenizer when `part` is no object or has none.
std::string kind_of(const Value& part, std::string_view what);

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
