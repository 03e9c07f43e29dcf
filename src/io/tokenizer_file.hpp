// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json as read: the vocabulary and the merges packed (they are nearly all of it), the rest as a
// tree.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/core/value.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {

struct TokenizerFile {
  struct Text {
    std::uint32_t offset, size;
    std::string_view in(const std::string& bytes) const { return {bytes.data() + offset, size}; }
  };
  struct Token {
    Text text;
    std::int32_t id;
  };
  struct Merge {
    Text left, right;
  };

  Value tree;  // model.vocab and model.merges are null in it when they have their usual types
  bool has_vocab = false, has_merges = false;
  std::string vocab_bytes, merge_bytes;  // what the Texts of each point into
  std::vector<Token> vocab;
  std::vector<Merge> merges;

  void add_merge(std::string_view line);  // "left right"
};

// Error("InvalidTokenizer") for what is not JSON, nests deeper than 128, or repeats a key.
TokenizerFile parse_tokenizer_json(std::string_view json);
TokenizerFile parse_vocab_and_merges(std::string_view vocab, std::string_view merges);

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
