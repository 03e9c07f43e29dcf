// SPDX-License-Identifier: Apache-2.0
#include <utf8proc.h>

#include <algorithm>

#include "src/io/tokenizer_stages.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {
namespace {

bool is_ascii(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Decomposes, sorts each run of combining marks by class, composes. utf8proc_map would do, were its sort not
// quadratic in the length of a run.
void unicode_form(std::string_view s, bool compose, bool compatibility, std::string& out) {
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                     (compatibility ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> chars;
  chars.reserve(s.size());
  for (std::size_t i = 0; i < s.size();) {
    utf8proc_int32_t parts[32];
    int boundary = 0;
    const auto c = static_cast<utf8proc_int32_t>(next_char(s, i));
    const utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, std::size(parts), options, &boundary);
    if (n < 0 || n > static_cast<utf8proc_ssize_t>(std::size(parts))) invalid("U+", c, " does not decompose");
    chars.insert(chars.end(), parts, parts + n);
  }
  const auto mark_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto i = chars.begin(); i != chars.end();) {
    const auto end = std::find_if(i, chars.end(), [&](auto c) { return mark_class(c) == 0; });
    std::stable_sort(i, end, [&](auto a, auto b) { return mark_class(a) < mark_class(b); });
    i = end == chars.end() ? end : end + 1;
  }
  const auto size = static_cast<utf8proc_ssize_t>(chars.size());
  const utf8proc_ssize_t n = utf8proc_normalize_utf32(chars.data(), size, options);
  for (utf8proc_ssize_t i = 0; i < n; ++i)
    append_utf8(out, static_cast<char32_t>(chars[static_cast<std::size_t>(i)]));
}

void lowercase(std::string_view s, std::string& out) {
  for (std::size_t i = 0; i < s.size();) {
    const char32_t c = next_char(s, i);
    if (c == 0x130)  // the one capital whose lower case is two characters
      out += "i\xcc\x87";
    else
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

std::string_view strip(std::string_view s, bool left, bool right) {
  if (left)
    for (std::size_t i = 0; i < s.size() && is_space(next_char(s, i)); i = 0) s.remove_prefix(i);
  if (right)
    for (std::size_t i = s.size(); i > 0 && is_space(previous_char(s, i)); i = s.size()) s = s.substr(0, i);
  return s;
}

}  // namespace

Pattern::Pattern(const Value& part, std::string_view what) {
  const Value* p = part.find("pattern");
  if (!p || !p->object() || p->object()->size() != 1)
    invalid(what, ": \"pattern\" must be {\"String\": ...} or {\"Regex\": ...}");
  const auto& [kind, value] = p->object()->front();
  if ((kind != "String" && kind != "Regex") || !value.string())
    invalid(what, ": \"pattern\" must be {\"String\": ...} or {\"Regex\": ...}");
  if (kind == "Regex")
    regex.emplace(*value.string());
  else if (value.string()->empty())
    unsupported(what, ": the pattern is an empty string");
  else
    literal = *value.string();
}

void replace_matches(const Pattern& pattern, std::string_view content, std::string_view s, std::string& out) {
  std::optional<Matcher> matcher;
  if (pattern.regex) matcher.emplace(*pattern.regex);
  std::size_t done = 0;
  const std::size_t most = out.size() + kFreeGrowth + kMostGrowth * s.size();
  each_match(pattern, matcher ? &*matcher : nullptr, s, [&](std::size_t begin, std::size_t end) {
    out.append(s.substr(done, begin - done)).append(content);
    if (out.size() > most) unsupported("a Replace makes a text more than ", kMostGrowth, " times longer");
    done = end;
  });
  out.append(s.substr(done));
}

Normalizer::Normalizer(const Value& part) { add(part, 0); }

void Normalizer::add(const Value& part, int depth) {
  if (part.is_null()) return;
  const std::string kind = kind_of(part, "a normalizer");
  if (kind == "Sequence") {
    if (depth == static_cast<int>(kMostStages)) unsupported("normalizers nest too deep");
    for (const Value& v : required_array(part, "normalizers")) add(v, depth + 1);
    return;
  }
  if (stages_.size() == kMostStages) unsupported("there are more than ", kMostStages, " normalizers");
  Stage s{};
  if (kind == "NFC" || kind == "NFD" || kind == "NFKC" || kind == "NFKD") {
    s.kind = Kind::unicode;
    s.compose = kind.back() == 'C';
    s.compatibility = kind[2] == 'K';
  } else if (kind == "Lowercase") {
    s.kind = Kind::lowercase;
  } else if (kind == "Strip") {
    s.kind = Kind::strip;
    s.left = flag(part, "strip_left", true);
    s.right = flag(part, "strip_right", true);
  } else if (kind == "Prepend") {
    s.kind = Kind::prepend;
    s.content = required_text(part, "prepend");
  } else if (kind == "Replace") {
    s.kind = Kind::replace;
    s.pattern = Pattern(part, "the normalizer Replace");
    s.content = required_text(part, "content");
  } else {
    unsupported("the normalizer \"", brief(kind),
                "\" is none of Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, ", "Prepend, Replace");
  }
  stages_.push_back(std::move(s));
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer) const {
  std::string next;
  const std::size_t most = kFreeGrowth + kMostGrowth * text.size();
  for (const Stage& s : stages_) {
    next.clear();
    switch (s.kind) {
      case Kind::unicode:
        if (is_ascii(text)) continue;
        unicode_form(text, s.compose, s.compatibility, next);
        break;
      case Kind::lowercase: lowercase(text, next); break;
      case Kind::strip: text = strip(text, s.left, s.right); continue;
      case Kind::prepend:
        if (text.empty()) continue;
        next.append(s.content).append(text);
        break;
      case Kind::replace: replace_matches(s.pattern, s.content, text, next); break;
    }
    if (next.size() > most)
      unsupported("the normalizers make a text more than ", kMostGrowth, " times longer");
    buffer.swap(next);
    text = buffer;
  }
  return text;
}

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
