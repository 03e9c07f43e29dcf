// SPDX-License-Identifier: Apache-2.0
// Patterns of tokenizer files: Oniguruma's syntax (Ruby flavour), run by PCRE2.
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace ashlar {
inline namespace v0 {
namespace tok {

// The same pattern in PCRE2's syntax (UTF, UCP, multi-line). Error("UnsupportedTokenizer") for what has none.
std::string pcre_pattern(std::string_view oniguruma);

// Compiled once, shared between threads.
class Regex {
 public:
  explicit Regex(std::string_view oniguruma);  // Error("UnsupportedTokenizer") when PCRE2 refuses it
  const std::string& pattern() const { return pattern_; }

 private:
  friend class Matcher;
  std::string pattern_;
  std::shared_ptr<const void> code_;
};

// What one thread needs to match.
class Matcher {
 public:
  explicit Matcher(const Regex& regex);
  ~Matcher();
  Matcher(Matcher&& m) noexcept;

  // The leftmost match at or after `from` of a valid UTF-8 subject.
  bool find(std::string_view subject, std::size_t from, std::size_t& begin, std::size_t& end);
  // f(begin, end) for each match in turn; none is empty where the one before it ended.
  template <class F>
  void each(std::string_view subject, F&& f) {
    std::size_t at = 0, begin = 0, end = 0, last = std::string_view::npos;
    while (at <= subject.size() && find(subject, at, begin, end)) {
      if (begin == end && end == last) {
        if (at == subject.size()) break;
        do ++at;
        while (at < subject.size() && (static_cast<unsigned char>(subject[at]) & 0xc0) == 0x80);
      } else {
        f(begin, end);
        at = last = end;
      }
    }
  }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
