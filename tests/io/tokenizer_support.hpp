// SPDX-License-Identifier: Apache-2.0
// What the tokenizer's tests share: small files made of parts, and what a tokenizer does with a text.
#pragma once
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "ashlar/io/tokenizer.hpp"
#include "tests/support.hpp"

namespace ashlar::test {

using Ids = std::vector<std::int32_t>;
using Json = nlohmann::json;
inline const std::string kFolder = ASHLAR_GOLDENS "/tokenizer/";

inline std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}

inline std::string kind_of_error(const std::string& json) {
  try {
    Tokenizer::from_json(json);
  } catch (const Error& e) {
    return e.kind();
  }
  return "accepted";
}

inline std::string utf8(char32_t c) {
  std::string s;
  if (c < 0x80) return s += static_cast<char>(c);
  if (c < 0x800) return s += static_cast<char>(0xc0 | c >> 6), s += static_cast<char>(0x80 | (c & 63));
  if (c < 0x10000)
    s += static_cast<char>(0xe0 | c >> 12);
  else
    s += static_cast<char>(0xf0 | c >> 18), s += static_cast<char>(0x80 | (c >> 12 & 63));
  return s += static_cast<char>(0x80 | (c >> 6 & 63)), s += static_cast<char>(0x80 | (c & 63));
}

// A tokenizer.json of a model's vocabulary and merges with other parts.
inline Json file_of(const Json& model, const Json& parts) {
  Json j = {{"version", "1.0"},         {"added_tokens", Json::array()}, {"normalizer", nullptr},
            {"pre_tokenizer", nullptr}, {"post_processor", nullptr},     {"decoder", nullptr}};
  j["model"] = model;
  if (!parts.is_null()) j.update(parts);
  return j;
}
inline Json characters_model(const std::string& alphabet,
                             const std::vector<std::array<std::string, 2>>& merges) {
  Json vocab = Json::object(), pairs = Json::array();
  int id = 0;
  for (std::size_t i = 0; i < alphabet.size();) {
    std::size_t end = i + 1;
    while (end < alphabet.size() && (static_cast<unsigned char>(alphabet[end]) & 0xc0) == 0x80) ++end;
    vocab[alphabet.substr(i, end - i)] = id++;
    i = end;
  }
  for (const auto& [a, b] : merges) {
    if (!vocab.contains(a + b)) vocab[a + b] = id++;
    pairs.push_back({a, b});
  }
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", pairs}};
}
inline std::vector<std::string> tokens_of(const Tokenizer& t, const std::string& text) {
  std::vector<std::string> all;
  for (std::int32_t id : t.encode(text)) all.emplace_back(t.token(id));
  return all;
}
using Strings = std::vector<std::string>;

// The pieces of a pre-tokenizer: everything that is one piece becomes one token through ignore_merges.
inline Strings pieces_of(const Json& pre_tokenizer, const std::string& text, const Strings& expected) {
  Json vocab = Json::object();
  int id = 0;
  for (const std::string& p : expected)
    if (!vocab.contains(p)) vocab[p] = id++;
  vocab["?"] = id;
  const Json model = {{"type", "BPE"},         {"vocab", vocab},   {"merges", Json::array()},
                      {"ignore_merges", true}, {"unk_token", "?"}, {"fuse_unk", true}};
  return tokens_of(Tokenizer::from_json(file_of(model, {{"pre_tokenizer", pre_tokenizer}}).dump()), text);
}
inline void expect_pieces(const Json& pre_tokenizer, const std::string& text, const Strings& expected) {
  EXPECT_EQ(pieces_of(pre_tokenizer, text, expected), expected) << pre_tokenizer << " on " << text;
}

}  // namespace ashlar::test
