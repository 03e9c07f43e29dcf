// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/json.hpp"

#include <algorithm>
#include <deque>

#include "ashlar/io/mapped_file.hpp"
#include "src/io/json_sax.hpp"
#include "src/io/utf8.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

std::string_view shortened(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0) == 0x80) --limit;
  return text.substr(0, limit);
}

void JsonHandler::parse(std::string_view text) {
  // nlohmann takes a NUL for the end, and skips a byte order mark; JSON has neither.
  if (const std::size_t at = text.find('\0'); at != text.npos) fail("not JSON: a NUL at byte ", at);
  if (text.starts_with("\xef\xbb\xbf")) fail("not JSON: it begins with a byte order mark");
  nlohmann::json_sax<nlohmann::json>* events = this;
  nlohmann::json::sax_parse(text.begin(), text.end(), events);
}

// e.what() is "[json.exception.parse_error.101] parse error at line 1, column 9: ..."; it may quote the text.
bool JsonHandler::parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) {
  std::string_view reason = e.what();
  if (const std::size_t bracket = reason.find("] "); bracket != reason.npos)
    reason.remove_prefix(bracket + 2);
  fail("not JSON: ", shortened(reason, 200));
}

namespace {

// Builds the tree from below: finished values wait on a stack until their array or object ends, and then move
// into a vector of just their number. Deques, since a growing vector would hold three times its elements.
class TreeBuilder final : public JsonHandler {
 public:
  explicit TreeBuilder(std::string_view what) : JsonHandler(what, "InvalidJson") {}
  Value take() { return std::move(values_.back()); }

 private:
  bool add(Value v) {
    values_.push_back(std::move(v));
    return true;
  }
  bool null() override { return add({}); }
  bool boolean(bool b) override { return add(b); }
  bool number_integer(std::int64_t i) override { return add(i); }
  bool number_unsigned(std::uint64_t u) override {
    const auto i = static_cast<std::int64_t>(u);
    return i >= 0 ? add(i) : add(static_cast<double>(u));
  }
  bool number_float(double x, const std::string&) override { return add(x); }
  bool string(std::string& s) override { return add(std::move(s)); }
  bool key(std::string& s) override {
    keys_.push_back(std::move(s));
    return true;
  }
  bool start_array(std::size_t) override { return start(); }
  bool start_object(std::size_t) override { return start(); }
  bool start() {
    enter(kJsonDepth);
    starts_.push_back({values_.size(), keys_.size()});
    return true;
  }
  bool end_array() override {
    Value::Array array(values_.size() - starts_.back().values);
    for (std::size_t i = array.size(); i-- > 0; values_.pop_back()) array[i] = std::move(values_.back());
    return finish(std::move(array));
  }
  bool end_object() override {
    Value::Object object(values_.size() - starts_.back().values);
    for (std::size_t i = object.size(); i-- > 0; values_.pop_back(), keys_.pop_back())
      object[i] = {std::move(keys_.back()), std::move(values_.back())};
    refuse_duplicates(object);
    return finish(std::move(object));
  }
  bool finish(Value v) {
    leave();
    starts_.pop_back();
    return add(std::move(v));
  }
  void refuse_duplicates(const Value::Object& object) const {
    std::vector<std::string_view> names;
    names.reserve(object.size());
    for (const auto& [name, value] : object) names.push_back(name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail("the name \"", shortened(*twice), "\" appears twice in an object");
  }

  struct Start {
    std::size_t values, keys;
  };
  std::vector<Start> starts_;
  std::deque<Value> values_;
  std::deque<std::string> keys_;
};

}  // namespace
}  // namespace detail

Value parse_json(std::string_view text, std::string_view what) {
  if (const std::size_t at = detail::find_invalid_utf8(text); at != text.size())
    throw Error("InvalidJson", concat(what, ": not JSON: byte ", at, " is not UTF-8"));
  detail::TreeBuilder tree(what);
  tree.parse(text);
  return tree.take();
}

Value read_json(const std::string& path) { return parse_json(read_text(path), path); }

}  // namespace v0
}  // namespace ashlar
