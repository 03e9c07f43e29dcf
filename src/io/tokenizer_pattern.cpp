// SPDX-License-Identifier: Apache-2.0
// Oniguruma's syntax (Ruby flavour, UTF-8) to PCRE2's. What differs, and what becomes of it:
//   \s \w (and complements)   written out: PCRE2's \s has U+180E, and its \w of before 10.43 no marks
//   \h                        a hexadecimal digit, not a horizontal space
//   [a[bc]] [a&&b]            nested classes and intersections: alternatives and lookaheads over one
//   character \p{Han}                   the Script property; PCRE2 takes a bare script name as
//   Script_Extensions
//   (?m)                      dot matches newline, PCRE2's (?s); ^ and $ are always those of lines
//   x{1,3}+                   a repeat of a repeat, not a possessive one
#include <cstdint>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "src/io/tokenizer_regex.hpp"
#include "src/io/tokenizer_text.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {
namespace {

// Insides of classes.
constexpr std::string_view kSpace =
    R"(\t-\r\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr std::string_view kHex = "0-9a-fA-F", kNotHex = R"(\x{0}-/:-@G-`g-\x{10ffff})";
constexpr std::string_view kNotWord = "\\W";  // stands for the complement of kWord
constexpr int kNesting = 64;

bool compiles(std::string_view pattern) {
  int error = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &where, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (i_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    unsupported("cannot take the pattern \"", brief(in_), "\": ", why);
  }
  bool next_is(std::string_view s) const { return in_.substr(i_).starts_with(s); }
  std::string_view take(std::size_t n) {
    if (n > in_.size() - i_) fail("it ends too early");
    const std::string_view s = in_.substr(i_, n);
    i_ += n;
    return s;
  }
  std::string_view take_char() {
    std::size_t end = i_;
    if (i_ < in_.size()) next_char(in_, end);
    return take(std::max<std::size_t>(end - i_, 1));
  }

  void step() {
    switch (in_[i_]) {
      case '\\': atom_ = out_.size(); return escape();
      case '[':
        atom_ = out_.size();
        out_ += char_class(0);
        return;
      case '(': return open();
      case ')':
        if (opened_.empty()) fail("a parenthesis closes that was not opened");
        out_ += take(1);
        atom_ = opened_.back();
        opened_.pop_back();
        return;
      case '{': return interval();
      case '*':
      case '+':
      case '?':
      case '|':
      case '^':
      case '$': out_ += take(1); return;
      default: atom_ = out_.size(); out_ += take_char();
    }
  }

  void open() {
    if (next_is("(*")) fail("verbs and callouts are not supported");
    opened_.push_back(out_.size());
    if (next_is("(?#")) {  // a comment
      opened_.pop_back();
      i_ = std::min(in_.find(')', i_), in_.size() - 1) + 1;
      return;
    }
    if (!next_is("(?")) {
      out_ += take(1);
      return;
    }
    out_ += take(2);
    if (next_is("~") || next_is("{") || next_is("C"))
      fail("absent operators, conditions and callouts are not supported");
    if (next_is("<") || next_is(":") || next_is("=") || next_is("!") || next_is(">") || next_is("|")) {
      out_ += take(1);
      return;
    }
    while (i_ < in_.size() && in_[i_] != ':' && in_[i_] != ')') {  // flags
      const char f = take(1)[0];
      if (f != 'i' && f != 'm' && f != 'x' && f != '-' && f != 's') fail("a group of an unknown kind");
      if (f == 'x') fail("the flag x is not supported");
      out_ += f == 'm' ? 's' : f;
    }
  }

  // {n}, {n,}, {,m}, {n,m} and a lazy ?; a + after it repeats the repeat.
  void interval() {
    std::size_t end = i_ + 1;
    bool comma = false, low = false, high = false;
    for (; end < in_.size() && in_[end] != '}'; ++end) {
      if (in_[end] == ',' && !comma)
        comma = true;
      else if (in_[end] >= '0' && in_[end] <= '9')
        (comma ? high : low) = true;
      else
        break;
    }
    if (end >= in_.size() || in_[end] != '}' || (!low && !high)) {  // not a repeat: a brace
      atom_ = out_.size();
      out_ += "\\{";
      ++i_;
      return;
    }
    const std::string_view body = take(end + 1 - i_);
    if (low)
      out_ += body;
    else
      out_.append("{0").append(body.substr(1));
    if (!next_is("+")) return;
    out_.insert(atom_, "(?:");
    out_ += ')';
  }

  // One escape outside a class.
  void escape() {
    const std::string_view set = class_escape();
    out_ += set == kNotWord ? concat("[^", kWord, "]")
            : !set.empty()  ? concat("[", set, "]")
                            : plain_escape();
  }

  // \s \S \w \W \h \H: what goes inside a class for it; empty for any other escape. \W has no such form.
  std::string_view class_escape() {
    if (i_ + 1 >= in_.size()) fail("it ends in a backslash");
    std::string_view set;
    switch (in_[i_ + 1]) {
      case 's': set = kSpace; break;
      case 'S': set = kNotSpace; break;
      case 'w': set = kWord; break;
      case 'W': set = kNotWord; break;
      case 'h': set = kHex; break;
      case 'H': set = kNotHex; break;
      default: return {};
    }
    i_ += 2;
    return set;
  }

  // Any other escape, as PCRE2 writes it.
  std::string plain_escape() {
    const char c = in_[i_ + 1];
    if (c == 'p' || c == 'P') return property();
    if (c == 'u') {  // \uHHHH
      i_ += 2;
      return concat("\\x{", take(4), "}");
    }
    if (c == 'x' && i_ + 2 < in_.size() && in_[i_ + 2] == '{') {
      const std::size_t end = in_.find('}', i_);
      if (end == in_.npos) fail("\\x{ is not closed");
      return std::string(take(end + 1 - i_));
    }
    if (c == 'Q' || c == 'E') {  // letters in Oniguruma's Ruby flavour
      i_ += 2;
      return std::string(1, c);
    }
    ++i_;
    return concat("\\", take_char());
  }

  std::string property() {
    const char letter = in_[i_ + 1];
    if (i_ + 2 >= in_.size() || in_[i_ + 2] != '{') {
      i_ += 2;
      return concat("\\", std::string_view(&letter, 1), take(1));
    }
    const std::size_t end = in_.find('}', i_);
    if (end == in_.npos) fail("\\p{ is not closed");
    std::string_view name = in_.substr(i_ + 3, end - i_ - 3);
    i_ = end + 1;
    bool negated = letter == 'P';
    if (name.starts_with('^')) negated = !negated, name.remove_prefix(1);
    const std::string_view open = negated ? "\\P{" : "\\p{";
    const std::string script = concat(open, "sc:", name, "}");
    return name.size() > 2 && name.size() < 64 && compiles(script) ? script : concat(open, name, "}");
  }

  // A class from its '[' on, as an expression for one character.
  std::string char_class(int depth) {
    if (depth > kNesting) fail("its classes nest too deep");
    ++i_;
    const bool negated = next_is("^");
    if (negated) ++i_;
    std::string all;  // of the intersections before this point
    std::string items;
    std::vector<std::string> others;  // alternatives to the items
    const auto close = [&] {
      std::string one = others.empty() && !items.empty() ? concat("[", items, "]") : "";
      if (others.empty() && items.empty()) fail("an empty class");
      if (one.empty()) {
        one = "(?:";
        if (!items.empty()) one.append("[").append(items).append("]");
        for (const std::string& o : others) one.append(one.size() > 3 ? "|" : "").append(o);
        one += ')';
      }
      all = all.empty() ? one : concat("(?:(?=", all, ")", one, ")");
    };
    bool first = true, simple = true;
    for (;; first = false) {
      if (i_ >= in_.size()) fail("a class is not closed");
      if (in_[i_] == ']' && !first) break;
      if (next_is("&&")) {
        close();
        items.clear(), others.clear();
        simple = false;
        i_ += 2;
      } else if (next_is("[:") && in_.find(":]", i_) != in_.npos) {
        items += take(in_.find(":]", i_) + 2 - i_);
      } else if (in_[i_] == '[') {
        others.push_back(char_class(depth + 1));
      } else if (in_[i_] == '\\') {
        const std::string_view set = class_escape();
        if (set == kNotWord)
          others.push_back(concat("[^", kWord, "]"));
        else
          items += set.empty() ? plain_escape() : std::string(set);
      } else if (in_[i_] == ']' || in_[i_] == '^') {
        items.append("\\").append(take(1));
      } else {
        items += take_char();
      }
    }
    ++i_;
    if (simple && others.empty()) return concat(negated ? "[^" : "[", items, "]");
    close();
    return negated ? concat("(?:(?!", all, ")\\p{Any})") : all;
  }

  std::string_view in_;
  std::size_t i_ = 0;
  std::string out_;
  std::size_t atom_ = 0;             // where the last atom begins in out_
  std::vector<std::size_t> opened_;  // where the open groups begin in out_
};

}  // namespace

std::string pcre_pattern(std::string_view oniguruma) {
  if (oniguruma.size() > 16384) unsupported("a pattern of ", oniguruma.size(), " bytes is too long");
  return Translator(oniguruma).run();
}

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
