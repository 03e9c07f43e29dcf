// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "src/io/tokenizer_stages.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {

Decoder::Decoder(const Value& part) {
  if (part.is_null())
    stages_.push_back({Kind::spaces, {}, {}});
  else
    add(part, 0);
}

void Decoder::add(const Value& part, int depth) {
  const std::string kind = kind_of(part, "a decoder");
  if (kind == "Sequence") {
    if (depth == static_cast<int>(kMostStages)) unsupported("decoders nest too deep");
    for (const Value& v : required_array(part, "decoders")) add(v, depth + 1);
    return;
  }
  if (stages_.size() == kMostStages) unsupported("there are more than ", kMostStages, " decoders");
  Stage s{};
  const auto one_character = [&](std::string_view key, std::string_view otherwise) {
    s.content = text(part, key, otherwise);
    std::size_t end = 0;
    if (s.content.empty() || (next_char(s.content, end), end != s.content.size()))
      invalid("the decoder ", kind, ": \"", key, "\" must be one character");
  };
  if (kind == "ByteLevel") {
    s.kind = Kind::byte_level;
  } else if (kind == "Replace") {
    s.kind = Kind::replace;
    s.pattern = Pattern(part, "the decoder Replace");
    s.content = required_text(part, "content");
  } else if (kind == "ByteFallback") {
    s.kind = Kind::byte_fallback;
  } else if (kind == "Fuse") {
    s.kind = Kind::fuse;
  } else if (kind == "Strip") {
    s.kind = Kind::strip;
    one_character("content", "");
    s.start = static_cast<std::size_t>(std::max<std::int64_t>(integer(part, "start", 0), 0));
    s.stop = static_cast<std::size_t>(std::max<std::int64_t>(integer(part, "stop", 0), 0));
  } else if (kind == "Metaspace") {
    s.kind = Kind::metaspace;
    one_character("replacement", "\xe2\x96\x81");
    s.drop_first =
        text(part, "prepend_scheme", flag(part, "add_prefix_space", true) ? "always" : "never") != "never";
  } else if (kind == "BPEDecoder") {
    s.kind = Kind::bpe;
    s.content = text(part, "suffix", "</w>");
  } else {
    unsupported("the decoder \"", brief(kind),
                "\" is none of Sequence, ByteLevel, Replace, ByteFallback, Fuse, ",
                "Strip, Metaspace, BPEDecoder");
  }
  stages_.push_back(std::move(s));
}

namespace {

// The byte of "<0xXX>", or -1.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = 0;
  for (char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    byte = byte * 16 + digit;
  }
  return byte;
}

// The bytes of a token of the byte-level alphabet; the token itself when it has other characters (added
// tokens).
std::string byte_level_bytes(std::string_view token) {
  std::string bytes;
  for (std::size_t i = 0; i < token.size();) {
    const int b = byte_of(next_char(token, i));
    if (b < 0) return std::string(token);
    bytes += static_cast<char>(b);
  }
  return bytes;
}

std::string replaced(std::string_view s, std::string_view from, std::string_view to) {
  std::string out;
  std::size_t done = 0;
  if (!from.empty())
    for (std::size_t at; (at = s.find(from, done)) != s.npos; done = at + from.size())
      out.append(s.substr(done, at - done)).append(to);
  return out.append(s.substr(done));
}

}  // namespace

// text() takes a part of a token, end() ends the token, finish() the stream; each calls its like on the next
// stage.
struct Decoder::Flow {
  const std::vector<Stage>& stages;
  State& states;
  std::string& out;

  void text(std::size_t i, std::string_view s) {
    if (s.empty()) return;
    if (i == stages.size()) {
      out += s;
      return;
    }
    StageState& state = states[i];
    switch (stages[i].kind) {
      case Kind::byte_level:
      case Kind::byte_fallback:
      case Kind::bpe: state.held += s; return;
      case Kind::replace:
        state.held += s;
        if (!stages[i].pattern.regex) replace(i, false);
        return;
      case Kind::fuse: return text(i + 1, s);
      case Kind::strip: return strip(i, s);
      case Kind::metaspace: return metaspace(i, s);
      case Kind::spaces: begin_spaced(i); return text(i + 1, s);
    }
  }

  void end(std::size_t i) {
    if (i == stages.size()) return;
    StageState& state = states[i];
    switch (stages[i].kind) {
      case Kind::fuse: return;
      case Kind::byte_level: {
        std::string valid;
        state.repair.push(byte_level_bytes(state.held), valid);
        state.held.clear();
        return text(i + 1, valid);
      }
      case Kind::replace: replace(i, true); break;
      case Kind::byte_fallback:
        if (const int b = fallback_byte(state.held); b >= 0) {
          state.run += static_cast<char>(b);
          state.held.clear();
          return;
        }
        end_run(i);
        text(i + 1, state.held);
        state.held.clear();
        break;
      case Kind::bpe:  // the last token differs, so that one is kept
        if (state.flag) give_word(i, " ");
        state.run.swap(state.held);
        state.held.clear();
        state.flag = true;
        return;
      case Kind::strip: state.count = 0, state.tokens = 0, state.begun = false; break;
      case Kind::metaspace: ++state.tokens; break;
      case Kind::spaces:
        begin_spaced(i);
        state.begun = false;
        break;
    }
    end(i + 1);
  }

  void finish(std::size_t i) {
    if (i == stages.size()) return;
    StageState& state = states[i];
    if (stages[i].kind == Kind::byte_level) {
      std::string valid;
      state.repair.finish(valid);
      text(i + 1, valid);
      end(i + 1);
    } else if (stages[i].kind == Kind::fuse) {
      end(i + 1);
    } else if (stages[i].kind == Kind::byte_fallback) {
      end_run(i);
    } else if (stages[i].kind == Kind::bpe && state.flag) {
      give_word(i, "");
    }
    state = StageState();
    finish(i + 1);
  }

 private:
  // Replaces in what is held of the token. Before its end, a tail that may begin a match of a literal stays.
  void replace(std::size_t i, bool whole) {
    const Stage& s = stages[i];
    std::string& held = states[i].held;
    std::size_t ready = held.size();
    if (!whole) {
      std::size_t done = 0;
      for (std::size_t at; (at = held.find(s.pattern.literal, done)) != held.npos;)
        done = at + s.pattern.literal.size();
      ready -= std::min(held.size() - done, s.pattern.literal.size() - 1);
      while (ready > done && ready < held.size() && (static_cast<unsigned char>(held[ready]) & 0xc0) == 0x80)
        --ready;
    }
    std::string done_part;
    replace_matches(s.pattern, s.content, std::string_view(held).substr(0, ready), done_part);
    held.erase(0, ready);
    text(i + 1, done_part);
  }

  // A run of byte tokens is one token when it is UTF-8, else U+FFFD for each byte.
  void end_run(std::size_t i) {
    StageState& state = states[i];
    std::string run;
    run.swap(state.run);
    if (run.empty()) return;
    if (is_utf8(run)) {
      text(i + 1, run);
      return end(i + 1);
    }
    for (std::size_t k = 0; k < run.size(); ++k) text(i + 1, "\xef\xbf\xbd"), end(i + 1);
  }

  void give_word(std::size_t i, std::string_view between) {
    text(i + 1, replaced(states[i].run, stages[i].content, between));
    end(i + 1);
  }

  // Drops the first `start` and the last `stop` of the token's characters while they are `content`.
  // state.begun: another character was seen; tokens: how many were dropped; count: how many may be the last
  // ones.
  void strip(std::size_t i, std::string_view part) {
    const Stage& s = stages[i];
    StageState& state = states[i];
    std::string kept;
    for (std::size_t at = 0; at < part.size();) {
      const std::size_t from = at;
      next_char(part, at);
      const std::string_view c = part.substr(from, at - from);
      if (c != s.content) {
        for (; state.count > 0; --state.count) kept += s.content;
        state.begun = true;
        kept += c;
      } else if (!state.begun && state.tokens < s.start) {
        ++state.tokens;
      } else if (++state.count > s.stop) {
        --state.count;
        state.begun = true;
        kept += c;
      }
    }
    text(i + 1, kept);
  }

  void metaspace(std::size_t i, std::string_view part) {
    const bool drop = states[i].tokens == 0 && stages[i].drop_first;
    text(i + 1, replaced(part, stages[i].content, drop ? "" : " "));
  }

  void begin_spaced(std::size_t i) {
    StageState& state = states[i];
    if (state.begun) return;
    state.begun = true;
    if (state.tokens++ > 0) text(i + 1, " ");
  }
};

void Decoder::push(std::string_view token, State& state, std::string& out) const {
  Flow flow{stages_, state, out};
  flow.text(0, token);
  flow.end(0);
}

void Decoder::finish(State& state, std::string& out) const { Flow{stages_, state, out}.finish(0); }

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
