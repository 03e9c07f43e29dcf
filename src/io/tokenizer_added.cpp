// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "src/io/tokenizer_stages.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {

std::vector<AddedToken> read_added_tokens(const Value* part) {
  std::vector<AddedToken> tokens;
  if (!part || part->is_null()) return tokens;
  if (!part->array()) invalid("\"added_tokens\" must be an array");
  for (const Value& v : *part->array()) {
    if (!v.object()) invalid("an element of \"added_tokens\" is no object");
    AddedToken t;
    const std::int64_t id = integer(v, "id", -1);
    t.content = required_text(v, "content");
    if (id < 0 || id >= std::numeric_limits<std::int32_t>::max())
      invalid("the added token \"", brief(t.content), "\" has the id ", id, ", which is out of range");
    t.id = static_cast<std::int32_t>(id);
    t.special = flag(v, "special", false);
    t.single_word = flag(v, "single_word", false);
    t.lstrip = flag(v, "lstrip", false);
    t.rstrip = flag(v, "rstrip", false);
    t.normalized = flag(v, "normalized", !t.special);
    tokens.push_back(std::move(t));
  }
  return tokens;
}

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens, std::vector<std::string> contents)
    : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < contents.size(); ++i)
    if (!contents[i].empty()) keys_.push_back({std::move(contents[i]), i});
  std::stable_sort(keys_.begin(), keys_.end(),
                   [](const Key& a, const Key& b) { return a.content < b.content; });
  const auto same = [](const Key& a, const Key& b) { return a.content == b.content; };
  keys_.erase(std::unique(keys_.begin(), keys_.end(), same), keys_.end());
  for (const Key& k : keys_) ++by_first_byte_[static_cast<unsigned char>(k.content[0]) + 1];
  for (std::size_t b = 0; b < 256; ++b) by_first_byte_[b + 1] += by_first_byte_[b];
}

// Keys that begin with the same bytes are neighbours: the range narrows with each byte of the text.
const AddedTokenFinder::Key* AddedTokenFinder::longest_at(std::string_view text) const {
  const auto first = static_cast<unsigned char>(text[0]);
  auto low = keys_.begin() + by_first_byte_[first], high = keys_.begin() + by_first_byte_[first + 1];
  const Key* longest = nullptr;
  for (std::size_t depth = 1; low != high; ++depth) {
    if (low->content.size() == depth) longest = &*low++;
    if (depth == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[depth]);
    const auto at = [&](const Key& k) { return static_cast<unsigned char>(k.content[depth]); };
    low = std::partition_point(low, high, [&](const Key& k) { return at(k) < byte; });
    high = std::partition_point(low, high, [&](const Key& k) { return at(k) == byte; });
  }
  return longest;
}

const AddedToken* AddedTokenFinder::next(std::string_view text, std::size_t done, std::size_t& search,
                                         std::size_t& begin, std::size_t& end) const {
  while (search < text.size()) {
    const auto byte = static_cast<unsigned char>(text[search]);
    const Key* key =
        by_first_byte_[byte] == by_first_byte_[byte + 1] ? nullptr : longest_at(text.substr(search));
    if (!key) {
      ++search;
      continue;
    }
    const AddedToken& token = tokens_[key->token];
    begin = search, end = search + key->content.size();
    search = end;
    if (begin < done) continue;  // inside white space that the token before it swallowed
    if (token.single_word) {
      std::size_t left = begin, right = end;
      if ((begin > 0 && is_word(previous_char(text, left))) ||
          (end < text.size() && is_word(next_char(text, right))))
        continue;
    }
    if (token.lstrip) {
      for (std::size_t i = begin; i > done && is_space(previous_char(text, i));) begin = i;
    }
    if (token.rstrip) {
      for (std::size_t i = end; i < text.size() && is_space(next_char(text, i));) end = i;
    }
    return &token;
  }
  return nullptr;
}

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
