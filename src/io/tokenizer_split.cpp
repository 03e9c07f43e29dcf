// SPDX-License-Identifier: Apache-2.0
// Pre-tokenizers.
#include <algorithm>

#include "src/io/tokenizer_stages.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {
namespace {

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kPunctuation = R"([\p{P}$+<=>^`|~])";
constexpr std::string_view kWords = R"([\w\x{200c}\x{200d}]+|[^\w\x{200c}\x{200d}\s]+)";

Pattern regex_pattern(std::string_view regex) {
  Pattern p;
  p.regex.emplace(regex);
  return p;
}

// A character of the byte-level alphabet: one or two bytes of UTF-8.
struct ByteCharacter {
  char bytes[2];
  std::uint8_t size;
};

// Printable bytes stand for themselves, the other 68 are U+0100, U+0101, ... in order.
const std::array<ByteCharacter, 256>& byte_characters() {
  static const auto table = [] {
    std::array<ByteCharacter, 256> all{};
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      std::string c;
      append_utf8(c, printable ? b : next++);
      all[b] = {{c[0], c.size() > 1 ? c[1] : '\0'}, static_cast<std::uint8_t>(c.size())};
    }
    return all;
  }();
  return table;
}

}  // namespace

int byte_of(char32_t c) {
  if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff))
    return static_cast<int>(c);
  if (c < 0x100 || c >= 0x144) return -1;
  const int n = static_cast<int>(c) - 0x100;  // the n-th of 0x00..0x20, 0x7f..0xa0, 0xad
  return n <= 0x20 ? n : n <= 0x42 ? n - 0x21 + 0x7f : 0xad;
}

PreTokenizer::PreTokenizer(const Value& part) { add(part, 0); }

void PreTokenizer::add(const Value& part, int depth) {
  if (part.is_null()) return;
  const std::string kind = kind_of(part, "a pre-tokenizer");
  if (kind == "Sequence") {
    if (depth == static_cast<int>(kMostStages)) unsupported("pre-tokenizers nest too deep");
    for (const Value& v : required_array(part, "pretokenizers")) add(v, depth + 1);
    return;
  }
  if (stages_.size() == kMostStages) unsupported("there are more than ", kMostStages, " pre-tokenizers");
  const auto behavior_of = [&](std::string_view name) {
    if (name == "Removed") return Behavior::removed;
    if (name == "Isolated") return Behavior::isolated;
    if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
    if (name == "MergedWithNext") return Behavior::merged_with_next;
    if (name == "Contiguous") return Behavior::contiguous;
    invalid("the behavior \"", brief(name),
            "\" is none of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
  };
  Stage s;
  if (kind == "ByteLevel") {
    for (const Stage& other : stages_)
      if (other.kind == Kind::byte_level) unsupported("there are two ByteLevel pre-tokenizers");
    s.kind = Kind::byte_level;
    s.prefix_space = flag(part, "add_prefix_space", true);
    if (flag(part, "use_regex", true)) s.pattern = regex_pattern(kGpt2);
  } else if (kind == "Split") {
    s.pattern = Pattern(part, "the pre-tokenizer Split");
    s.behavior = behavior_of(required_text(part, "behavior"));
    s.invert = flag(part, "invert", false);
  } else if (kind == "Metaspace") {
    s.kind = Kind::metaspace;
    s.replacement = text(part, "replacement", "\xe2\x96\x81");
    std::size_t end = 0;
    if (s.replacement.empty() || (next_char(s.replacement, end), end != s.replacement.size()))
      invalid("Metaspace: \"replacement\" must be one character");
    const std::string scheme =
        text(part, "prepend_scheme", flag(part, "add_prefix_space", true) ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      invalid("Metaspace: \"prepend_scheme\" is \"", brief(scheme), "\", expected always, first or never");
    s.prepend = scheme == "always" ? Prepend::always : scheme == "first" ? Prepend::first : Prepend::never;
    s.divide = flag(part, "split", true);
    s.pattern.literal = s.replacement;
    s.behavior = Behavior::merged_with_next;
  } else if (kind == "Digits") {
    s.pattern = regex_pattern(flag(part, "individual_digits", false) ? "\\p{N}" : "\\p{N}+");
  } else if (kind == "Whitespace") {
    s.pattern = regex_pattern(kWords);
    s.behavior = Behavior::removed;
    s.invert = true;
  } else if (kind == "WhitespaceSplit") {
    s.pattern = regex_pattern("\\s+");
    s.behavior = Behavior::removed;
  } else if (kind == "Punctuation") {
    s.pattern = regex_pattern(kPunctuation);
    s.behavior = behavior_of(text(part, "behavior", "Isolated"));
  } else {
    unsupported("the pre-tokenizer \"", brief(kind),
                "\" is none of Sequence, ByteLevel, Split, Metaspace, Digits, ",
                "Whitespace, WhitespaceSplit, Punctuation");
  }
  stages_.push_back(std::move(s));
}

PreTokenizer::Scratch::Scratch(const PreTokenizer& p) : stages_(p.stages_.size()) {
  for (std::size_t i = 0; i < stages_.size(); ++i)
    if (p.stages_[i].pattern.regex) stages_[i].matcher.emplace(*p.stages_[i].pattern.regex);
}

void PreTokenizer::split(std::string_view text, bool first, Scratch& scratch, const Sink& sink) const {
  if (!text.empty()) run(0, {text, first}, scratch, sink);
}

// Depth first: each piece goes through all the stages before the next one is looked for.
void PreTokenizer::run(std::size_t stage, Piece piece, Scratch& scratch, const Sink& sink) const {
  if (stage == stages_.size()) return sink(piece.text);
  switch (stages_[stage].kind) {
    case Kind::byte_level: return byte_level(stage, piece, scratch, sink);
    case Kind::metaspace: return metaspace(stage, piece, scratch, sink);
    case Kind::split:
      divide(stage, piece.text, scratch, [&](std::size_t begin, std::size_t end) {
        run(stage + 1, {piece.text.substr(begin, end - begin), piece.first && begin == 0}, scratch, sink);
      });
  }
}

void PreTokenizer::byte_level(std::size_t stage, Piece piece, Scratch& scratch, const Sink& sink) const {
  const Stage& s = stages_[stage];
  Scratch::Stage& own = scratch.stages_[stage];
  std::string_view text = piece.text;
  if (s.prefix_space && text[0] != ' ') own.text.assign(1, ' ').append(text), text = own.text;
  const auto& characters = byte_characters();
  const auto pass = [&](std::size_t begin, std::size_t end) {
    if (own.mapped.size() < 2 * (end - begin)) own.mapped.resize(2 * (end - begin));
    char* to = own.mapped.data();
    for (std::size_t i = begin; i < end; ++i) {
      const ByteCharacter& c = characters[static_cast<unsigned char>(text[i])];
      to[0] = c.bytes[0];
      if (c.size > 1) to[1] = c.bytes[1];
      to += c.size;
    }
    const std::string_view mapped(own.mapped.data(), static_cast<std::size_t>(to - own.mapped.data()));
    run(stage + 1, {mapped, piece.first && begin == 0}, scratch, sink);
  };
  if (s.pattern.regex)
    divide(stage, text, scratch, pass);
  else
    pass(0, text.size());
}

void PreTokenizer::metaspace(std::size_t stage, Piece piece, Scratch& scratch, const Sink& sink) const {
  const Stage& s = stages_[stage];
  std::string& out = scratch.stages_[stage].text;
  out.clear();
  const bool marked = piece.text[0] == ' ' || piece.text.starts_with(s.replacement);
  if (!marked && (s.prepend == Prepend::always || (s.prepend == Prepend::first && piece.first)))
    out += s.replacement;
  for (char c : piece.text) c == ' ' ? out.append(s.replacement) : out.append(1, c);
  if (!s.divide) return run(stage + 1, {out, piece.first}, scratch, sink);
  divide(stage, out, scratch, [&](std::size_t begin, std::size_t end) {
    run(stage + 1, {std::string_view(out).substr(begin, end - begin), piece.first && begin == 0}, scratch,
        sink);
  });
}

// f(begin, end) for each piece that is not empty. Spans are the matches and what is between them; `hit` says
// which (the other way round when inverted), and the behavior which spans are dropped or joined with a
// neighbour.
template <class F>
void PreTokenizer::divide(std::size_t stage, std::string_view text, Scratch& scratch, F&& f) const {
  const Stage& s = stages_[stage];
  std::optional<Matcher>& matcher = scratch.stages_[stage].matcher;
  std::size_t begin = 0, end = 0;  // the piece so far
  bool previous = false, any = false;
  const auto flush = [&] {
    if (end > begin) f(begin, end);
  };
  const auto span = [&](std::size_t from, std::size_t to, bool match) {
    const bool hit = match != s.invert;
    bool join = false;
    switch (s.behavior) {
      case Behavior::isolated: break;
      case Behavior::removed:
        if (!hit && from < to) f(from, to);
        return;
      case Behavior::merged_with_previous: join = hit && !previous; break;
      case Behavior::merged_with_next: join = any && previous && !hit; break;
      case Behavior::contiguous: join = hit == previous; break;
    }
    if (!any || !join) flush(), begin = from;
    end = to, previous = hit, any = true;
  };
  std::size_t done = 0;
  each_match(s.pattern, matcher ? &*matcher : nullptr, text, [&](std::size_t from, std::size_t to) {
    if (from > done) span(done, from, false);
    span(from, to, true);
    done = to;
  });
  if (done < text.size()) span(done, text.size(), false);
  flush();
}

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
