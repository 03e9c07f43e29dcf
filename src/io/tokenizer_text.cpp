// SPDX-License-Identifier: Apache-2.0
#include "src/io/tokenizer_text.hpp"

#include <utf8proc.h>

#include <cstring>

namespace ashlar {
inline namespace v0 {
namespace tok {

std::string brief(std::string_view text) {
  constexpr std::size_t kMost = 80;
  if (text.size() <= kMost) return std::string(text);
  std::size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return concat(text.substr(0, end), "...");
}

int utf8_step(const char* bytes, std::size_t n) {
  const auto* p = reinterpret_cast<const unsigned char*>(bytes);
  const unsigned b = p[0];
  if (b < 0x80) return 1;
  if (b < 0xc2 || b > 0xf4) return -1;
  const int length = b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
  // No overlong forms, no surrogates, nothing above U+10FFFF: all shows in the second byte.
  const unsigned low = b == 0xe0   ? 0xa0
                       : b == 0xf0 ? 0x90
                                   : 0x80,
                 high = b == 0xed   ? 0x9f
                        : b == 0xf4 ? 0x8f
                                    : 0xbf;
  for (int i = 1; i < length; ++i) {
    if (static_cast<std::size_t>(i) == n) return 0;
    if (i == 1 ? p[1] < low || p[1] > high : (p[i] & 0xc0) != 0x80) return -i;
  }
  return length;
}

bool is_utf8(std::string_view s) {
  std::size_t i = 0;
  while (i < s.size()) {
    std::uint64_t eight;
    if (i + 8 <= s.size() && (std::memcpy(&eight, s.data() + i, 8), (eight & 0x8080808080808080u) == 0)) {
      i += 8;
      continue;
    }
    const int step = utf8_step(s.data() + i, s.size() - i);
    if (step <= 0) return false;
    i += static_cast<std::size_t>(step);
  }
  return true;
}

void append_utf8(std::string& s, char32_t c) {
  const auto tail = [&](int shift) { s += static_cast<char>(0x80 | ((c >> shift) & 0x3f)); };
  if (c < 0x80) {
    s += static_cast<char>(c);
  } else if (c < 0x800) {
    s += static_cast<char>(0xc0 | c >> 6), tail(0);
  } else if (c < 0x10000) {
    s += static_cast<char>(0xe0 | c >> 12), tail(6), tail(0);
  } else {
    s += static_cast<char>(0xf0 | c >> 18), tail(12), tail(6), tail(0);
  }
}

void Utf8Repair::push(std::string_view bytes, std::string& out) {
  std::string joined;
  if (size_ > 0) joined.assign(held_, size_).append(bytes), bytes = joined;
  std::size_t i = 0;
  size_ = 0;
  while (i < bytes.size()) {
    const int step = utf8_step(bytes.data() + i, bytes.size() - i);
    if (step > 0) {
      out.append(bytes.substr(i, static_cast<std::size_t>(step)));
      i += static_cast<std::size_t>(step);
    } else if (step < 0) {
      append_utf8(out, 0xfffd);
      i += static_cast<std::size_t>(-step);
    } else {
      size_ = bytes.size() - i;
      std::memcpy(held_, bytes.data() + i, size_);
      return;
    }
  }
}

void Utf8Repair::finish(std::string& out) {
  if (size_ > 0) append_utf8(out, 0xfffd);
  size_ = 0;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool is_word(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default:  // circled and squared letters, which are alphabetic symbols; ZWNJ and ZWJ
      return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
             (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
  }
}

namespace {
const Value* member(const Value& part, std::string_view key) {
  const Value* v = part.find(key);
  return v && v->is_null() ? nullptr : v;
}
}  // namespace

bool flag(const Value& part, std::string_view key, bool otherwise) {
  const Value* v = member(part, key);
  if (!v) return otherwise;
  if (!v->boolean()) invalid("\"", key, "\" must be true or false");
  return *v->boolean();
}

std::string text(const Value& part, std::string_view key, std::string_view otherwise) {
  const Value* v = member(part, key);
  if (!v) return std::string(otherwise);
  if (!v->string()) invalid("\"", key, "\" must be a string");
  return *v->string();
}

std::string required_text(const Value& part, std::string_view key) {
  if (!member(part, key)) invalid("\"", key, "\" is missing, expected a string");
  return text(part, key, "");
}

std::int64_t integer(const Value& part, std::string_view key, std::int64_t otherwise) {
  const Value* v = member(part, key);
  if (!v) return otherwise;
  if (!v->integer()) invalid("\"", key, "\" must be an integer");
  return *v->integer();
}

const Value::Array& required_array(const Value& part, std::string_view key) {
  const Value* v = part.find(key);
  if (!v || !v->array()) invalid("\"", key, "\" must be an array");
  return *v->array();
}

std::string kind_of(const Value& part, std::string_view what) {
  if (!part.object()) invalid(what, " must be an object or null");
  if (!member(part, "type")) invalid(what, " has no \"type\"");
  return text(part, "type", "");
}

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
