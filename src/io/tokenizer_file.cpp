// SPDX-License-Identifier: Apache-2.0
#include "src/io/tokenizer_file.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "src/io/tokenizer_text.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {

namespace {
TokenizerFile::Text store(std::string& bytes, std::string_view s) {
  const TokenizerFile::Text t{static_cast<std::uint32_t>(bytes.size()), static_cast<std::uint32_t>(s.size())};
  bytes += s;
  return t;
}
}  // namespace

void TokenizerFile::add_merge(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == 0 || space == line.npos || space + 1 == line.size() || line.find(' ', space + 1) != line.npos)
    invalid("merge ", merges.size(), ", \"", brief(line),
            "\", is not two tokens with one space between them");
  merges.push_back({store(merge_bytes, line.substr(0, space)), store(merge_bytes, line.substr(space + 1))});
}

namespace {

constexpr std::size_t kDepth = 128;
constexpr std::size_t kMostBytes = std::size_t{1} << 30;

void refuse_repeated_keys(const Value::Object& object) {
  std::vector<std::string_view> keys;
  keys.reserve(object.size());
  for (const auto& [key, value] : object) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice != keys.end()) invalid("the key \"", brief(*twice), "\" is there twice in one object");
}

// The events of nlohmann's parser. It does not recurse, so the depth is bounded here only for the tree's
// destructor.
class Reader {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  // vocab_only: the top-level object is a vocabulary.
  Reader(TokenizerFile& file, std::size_t size, bool vocab_only)
      : file_(file), nodes_left_(4096 + size / 6), vocab_only_(vocab_only) {}

  bool null() { return value(Value()); }
  bool boolean(bool b) { return value(Value(b)); }
  bool number_float(number_float_t x, const string_t&) { return value(Value(x)); }
  bool binary(binary_t&) { return false; }
  bool number_integer(number_integer_t i) {
    if (mode_ == Mode::vocab) return token(i);
    return value(Value(std::int64_t{i}));
  }
  bool number_unsigned(number_unsigned_t u) {
    if (u > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max()))
      invalid("the number ", std::to_string(u), " is out of range");
    return number_integer(static_cast<number_integer_t>(u));
  }
  bool string(string_t& s) {
    if (mode_ == Mode::merges) {
      if (s.starts_with("#version")) return true;
      return file_.add_merge(s), true;
    }
    if (mode_ == Mode::pair) {
      if (parts_ == 2) invalid("merge ", file_.merges.size(), " has more than two tokens");
      pair_[parts_++] = store(file_.merge_bytes, s);
      return true;
    }
    return value(Value(std::move(s)));
  }

  bool key(string_t& k) {
    if (mode_ == Mode::vocab)
      token_ = store(file_.vocab_bytes, k);
    else if (mode_ == Mode::tree)
      stack_.back().key = std::move(k);
    return true;
  }
  bool start_object(std::size_t) {
    if (vocab_only_ ? stack_.empty() : at("model", "vocab")) {
      refuse_inside();
      file_.has_vocab = true;
      mode_ = Mode::vocab;
      return vocab_only_ ? push(true) : (keep(Value()), push(true));
    }
    refuse_inside();
    return push(true);
  }
  bool start_array(std::size_t) {
    if (mode_ == Mode::merges) {
      mode_ = Mode::pair;
      parts_ = 0;
      return true;
    }
    refuse_inside();
    if (at("model", "merges")) {
      file_.has_merges = true;
      mode_ = Mode::merges;
      keep(Value());
    } else if (at("model", "vocab")) {  // of another model: its contents are not kept
      keep(Value(Value::Array()));
      mode_ = Mode::skip;
    }
    return push(false);
  }
  bool end_object() { return pop(); }
  bool end_array() {
    if (mode_ == Mode::pair) {
      if (parts_ != 2) invalid("merge ", file_.merges.size(), " has ", parts_, " tokens, expected 2");
      file_.merges.push_back({pair_[0], pair_[1]});
      mode_ = Mode::merges;
      return true;
    }
    return pop();
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) {
    const std::string_view why = e.what();
    invalid("not JSON at byte ", position, ": ",
            brief(why.substr(std::min(why.find("] "), why.size() - 2) + 2)));
  }

 private:
  enum class Mode { tree, vocab, merges, pair, skip };
  struct Level {
    bool object;
    Value::Object members;
    Value::Array elements;
    std::string key;
  };

  // The value about to come is member `inner` of member `outer` of the top-level object.
  bool at(std::string_view outer, std::string_view inner) const {
    return mode_ == Mode::tree && stack_.size() == 2 && stack_[0].object && stack_[1].object &&
           stack_[0].key == outer && stack_[1].key == inner;
  }
  void refuse_inside() const {
    if (mode_ == Mode::vocab)
      invalid("model.vocab: the id of \"", brief(token_.in(file_.vocab_bytes)), "\" is not an integer");
    if (mode_ == Mode::merges || mode_ == Mode::pair)
      invalid("merge ", file_.merges.size(), " is neither a string nor a pair of strings");
  }
  bool token(std::int64_t id) {
    if (id < 0 || id >= std::numeric_limits<std::int32_t>::max())
      invalid("model.vocab: the id ", id, " of \"", brief(token_.in(file_.vocab_bytes)),
              "\" is out of range");
    file_.vocab.push_back({token_, static_cast<std::int32_t>(id)});
    return true;
  }
  bool value(Value v) {
    refuse_inside();
    if (mode_ != Mode::skip) keep(std::move(v));
    return true;
  }
  void keep(Value v) {
    if (nodes_left_-- == 0) invalid("too many values for a file of this size");
    if (stack_.empty()) {
      file_.tree = std::move(v);
    } else if (Level& top = stack_.back(); top.object) {
      top.members.emplace_back(std::move(top.key), std::move(v));
    } else {
      top.elements.push_back(std::move(v));
    }
  }
  bool push(bool object) {
    if (stack_.size() == kDepth) invalid("nested deeper than ", kDepth, " levels");
    stack_.push_back({object, {}, {}, {}});
    if (mode_ != Mode::tree && closes_ == 0) closes_ = stack_.size();
    return true;
  }
  bool pop() {
    Level done = std::move(stack_.back());
    stack_.pop_back();
    if (mode_ != Mode::tree) {  // its place in the tree is taken already
      if (stack_.size() + 1 == closes_) mode_ = Mode::tree, closes_ = 0;
      return true;
    }
    if (done.object) {
      refuse_repeated_keys(done.members);
      keep(Value(std::move(done.members)));
    } else {
      keep(Value(std::move(done.elements)));
    }
    return true;
  }

  TokenizerFile& file_;
  std::size_t nodes_left_;
  bool vocab_only_;
  Mode mode_ = Mode::tree;
  std::size_t closes_ = 0;  // the depth at which mode_ ends
  std::vector<Level> stack_;
  TokenizerFile::Text token_{}, pair_[2] = {};
  int parts_ = 0;
};

TokenizerFile parse(std::string_view json, bool vocab_only) {
  if (json.size() > kMostBytes) invalid("the file has ", json.size(), " bytes, more than ", kMostBytes);
  TokenizerFile file;
  Reader reader(file, json.size(), vocab_only);
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) invalid("not JSON");
  return file;
}

}  // namespace

TokenizerFile parse_tokenizer_json(std::string_view json) {
  TokenizerFile file = parse(json, false);
  if (!file.tree.object()) invalid("the file is no JSON object");
  return file;
}

TokenizerFile parse_vocab_and_merges(std::string_view vocab, std::string_view merges) {
  TokenizerFile file = parse(vocab, true);
  if (!file.has_vocab) invalid("the vocabulary is no JSON object");
  if (merges.size() > kMostBytes)
    invalid("the merges have ", merges.size(), " bytes, more than ", kMostBytes);
  if (!is_utf8(merges)) invalid("the merges are not UTF-8");
  file.has_merges = true;
  while (!merges.empty()) {
    const std::size_t end = std::min(merges.find('\n'), merges.size());
    std::string_view line = merges.substr(0, end);
    merges.remove_prefix(std::min(end + 1, merges.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) file.add_merge(line);
  }
  return file;
}

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
