// SPDX-License-Identifier: Apache-2.0
// What happens to a text before and after the model: added tokens, normalizers, pre-tokenizers, decoders.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/tokenizer_regex.hpp"
#include "src/io/tokenizer_text.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {

// Sequences are flattened; a longer one is refused.
constexpr std::size_t kMostStages = 32;
// A text may grow to this many times its size plus kFreeGrowth: replacements of replacements could do
// anything.
constexpr std::size_t kMostGrowth = 64, kFreeGrowth = 65536;

// {"String": s} or {"Regex": r}.
struct Pattern {
  std::string literal;  // used when there is no regex
  std::optional<Regex> regex;

  Pattern() = default;
  Pattern(const Value& part, std::string_view what);
};

// f(begin, end) for each match. `matcher` belongs to pattern.regex.
template <class F>
void each_match(const Pattern& pattern, Matcher* matcher, std::string_view s, F&& f) {
  if (matcher) return matcher->each(s, f);
  for (std::size_t at = 0; (at = s.find(pattern.literal, at)) != s.npos; at += pattern.literal.size())
    f(at, at + pattern.literal.size());
}
// Appends s to out with each match replaced.
void replace_matches(const Pattern& pattern, std::string_view content, std::string_view s, std::string& out);

// --- Normalizers: text to text
// ---------------------------------------------------------------------------------
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(const Value& part);  // null: none

  // The normalized text: `text` itself, or a view of `buffer`.
  std::string_view apply(std::string_view text, std::string& buffer) const;

 private:
  enum class Kind { unicode, lowercase, strip, prepend, replace };
  struct Stage {
    Kind kind;
    bool compose = false, compatibility = false;  // unicode
    bool left = false, right = false;             // strip
    Pattern pattern;                              // replace
    std::string content;                          // replace, prepend
  };
  void add(const Value& part, int depth);
  std::vector<Stage> stages_;
};

// --- Pre-tokenizers: text to pieces
// ----------------------------------------------------------------------------
class PreTokenizer {
 public:
  // What one thread needs.
  class Scratch;
  using Sink = std::function<void(std::string_view piece)>;

  PreTokenizer() = default;
  explicit PreTokenizer(const Value& part);  // null: the text is one piece

  // first: the text begins where the whole input does.
  void split(std::string_view text, bool first, Scratch& scratch, const Sink& sink) const;

 private:
  enum class Kind { byte_level, split, metaspace };
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  enum class Prepend { always, first, never };
  struct Stage {
    Kind kind = Kind::split;
    Pattern pattern;  // byte_level without use_regex has none
    Behavior behavior = Behavior::isolated;
    bool invert = false;
    bool prefix_space = false, divide = true;
    std::string replacement;
    Prepend prepend = Prepend::always;
  };
  struct Piece {
    std::string_view text;
    bool first;
  };
  void add(const Value& part, int depth);
  void run(std::size_t stage, Piece piece, Scratch& scratch, const Sink& sink) const;
  void byte_level(std::size_t stage, Piece piece, Scratch& scratch, const Sink& sink) const;
  void metaspace(std::size_t stage, Piece piece, Scratch& scratch, const Sink& sink) const;
  template <class F>
  void divide(std::size_t stage, std::string_view text, Scratch& scratch, F&& f) const;
  std::vector<Stage> stages_;
};

class PreTokenizer::Scratch {
 public:
  explicit Scratch(const PreTokenizer& p);

 private:
  friend class PreTokenizer;
  struct Stage {
    std::optional<Matcher> matcher;
    std::string text, mapped;
  };
  std::vector<Stage> stages_;
};

// --- Decoders: tokens to text
// ---------------------------------------------------------------------------------- Each stage takes tokens,
// which may come in parts, and gives tokens to the next; the last one's texts are joined.
class Decoder {
 public:
  struct StageState {
    std::string held, run;
    Utf8Repair repair;
    std::size_t tokens = 0, count = 0;
    bool begun = false, flag = false;
  };
  using State = std::vector<StageState>;

  Decoder() = default;
  explicit Decoder(const Value& part);  // null: tokens joined with spaces

  State start() const { return State(stages_.size()); }
  void push(std::string_view token, State& state, std::string& out) const;
  void finish(State& state, std::string& out) const;

 private:
  enum class Kind { byte_level, replace, byte_fallback, fuse, strip, metaspace, bpe, spaces };
  struct Stage {
    Kind kind;
    Pattern pattern;      // replace
    std::string content;  // replace, strip, metaspace; bpe: the suffix
    std::size_t start = 0, stop = 0;
    bool drop_first = false;  // metaspace
  };
  struct Flow;
  void add(const Value& part, int depth);
  std::vector<Stage> stages_;
};

// The byte that a character of the byte-level alphabet stands for; -1 for any other character.
int byte_of(char32_t c);

// --- Added tokens
// ----------------------------------------------------------------------------------------------
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = true, special = false;
};
std::vector<AddedToken> read_added_tokens(const Value* part);

// Finds added tokens in a text: the leftmost, the longest of those that begin there.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  // `contents[i]` is what to look for as tokens[i].
  AddedTokenFinder(std::vector<AddedToken> tokens, std::vector<std::string> contents);

  bool empty() const { return keys_.empty(); }
  // Divides the text: f(part, id), with id -1 for text between added tokens. No part is empty.
  template <class F>
  void divide(std::string_view text, F&& f) const {
    std::size_t done = 0, begin = 0, end = 0, search = 0;
    const AddedToken* token = nullptr;
    while ((token = next(text, done, search, begin, end))) {
      if (begin > done) f(text.substr(done, begin - done), std::int32_t{-1});
      f(text.substr(begin, end - begin), token->id);
      done = end;
    }
    if (done < text.size()) f(text.substr(done), std::int32_t{-1});
  }

 private:
  struct Key {
    std::string content;
    std::size_t token;
  };
  // The next token to take at or after `search`, which moves behind it; [begin, end) is with the white space
  // it swallows, not before `done`.
  const AddedToken* next(std::string_view text, std::size_t done, std::size_t& search, std::size_t& begin,
                         std::size_t& end) const;
  const Key* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::vector<Key> keys_;  // sorted
  std::array<std::uint32_t, 257> by_first_byte_{};
};

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
