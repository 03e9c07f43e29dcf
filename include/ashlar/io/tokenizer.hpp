// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {

// A byte-pair-encoding tokenizer in the format of Hugging Face's tokenizer.json:
//   added tokens -> normalizer -> pre-tokenizer -> BPE -> post-processor, and a decoder for the way back.
// Supported parts:
//   normalizer      Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace
//   pre_tokenizer   Sequence, ByteLevel, Split, Metaspace, Digits, Whitespace, WhitespaceSplit, Punctuation
//   model           BPE, without dropout
//   post_processor  Sequence, ByteLevel, TemplateProcessing of one sequence
//   decoder         Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, BPEDecoder
// Patterns are those of the file, read as Oniguruma does (\s is Unicode White_Space) and run by PCRE2.
// `truncation` and `padding` are ignored. A kind or pattern outside this list is
// Error("UnsupportedTokenizer"), a file that contradicts itself Error("InvalidTokenizer"), one that cannot be
// read Error("FileNotFound").
//
// A value: copies share the same tables. Const, so that threads may share one.
class Tokenizer {
 public:
  static Tokenizer from_file(const std::string& path);
  // tokenizer.json; without it vocab.json and merges.txt, read as GPT-2's tokenizer.
  static Tokenizer from_directory(const std::string& path);
  // The text of a tokenizer.json. `what` names it in messages.
  static Tokenizer from_json(std::string_view json, std::string_view what = "tokenizer");
  // The texts of a vocab.json and a merges.txt.
  static Tokenizer from_vocab_and_merges(std::string_view vocab, std::string_view merges,
                                         std::string_view what = "tokenizer");

  // Ids of a text. With add_special_tokens, what the post-processor puts around it. A text that is not UTF-8
  // is read as Python's decode(errors="replace") reads it: U+FFFD for each part that can begin no character.
  // Time O(n log n), memory O(n). Error("UnsupportedTokenizer") when a pattern of the file exceeds PCRE2's
  // match limit on this text; Error("InvalidTokenizer") for an unknown character when the file's unk_token is
  // not in its vocabulary.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  // The text of ids, always valid UTF-8: bytes that form no character become U+FFFD. Error("InvalidArgument")
  // for an id that is no token. skip_special_tokens leaves out the added tokens that the file marks as
  // special.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;

  // The id of a token as the file writes it (U+0120 for a leading space, ...); -1 when there is none.
  std::int32_t id_of(std::string_view token) const;
  // The token of an id, as the file writes it. Error("InvalidArgument") when there is none.
  std::string_view token(std::int32_t id) const;
  bool is_special(std::int32_t id) const;
  // One more than the largest id.
  Index vocab_size() const;

  struct Impl;

 private:
  friend class TokenStream;
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

// Decodes ids as they come: push() returns the text that is final after this id, finish() what was held back.
// All of it together is decode() of all ids, and each piece is valid UTF-8. Held back are the bytes of an
// incomplete character; with a ByteFallback decoder a run of byte tokens until another token ends it, since a
// run with one bad byte is U+FFFD for each; and what a decoder needs to see the end of the text for. A value:
// a copy continues by itself. Not shared between threads.
class TokenStream {
 public:
  explicit TokenStream(const Tokenizer& tokenizer, bool skip_special_tokens = false);
  TokenStream(const TokenStream& other);
  TokenStream(TokenStream&& other) noexcept;
  TokenStream& operator=(TokenStream other) noexcept;
  ~TokenStream();

  std::string push(std::int32_t id);
  // After it the stream is as new.
  std::string finish();

 private:
  struct State;
  std::shared_ptr<const Tokenizer::Impl> impl_;
  std::unique_ptr<State> state_;
  bool skip_special_tokens_;
};

}  // namespace v0
}  // namespace ashlar
