// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/tokenizer.hpp"
#include "ashlar/io/json.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

constexpr std::string_view kSuffix = ".cases.json";

std::vector<std::int32_t> ids_of(const Value& c) {
  std::vector<std::int32_t> ids;
  const Value* list = c.find("ids");
  if (list == nullptr || list->array() == nullptr) throw Error("InvalidConfig", "a case has no list of ids");
  for (const Value& id : *list->array()) {
    if (id.integer() == nullptr) throw Error("InvalidConfig", "a case has an id that is no integer");
    ids.push_back(static_cast<std::int32_t>(*id.integer()));
  }
  return ids;
}

// The text in quotes, line ends as \n and \r: a line of the report is a line.
std::string one_line(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '\n')
      quoted += "\\n";
    else if (c == '\r')
      quoted += "\\r";
    else
      quoted += c;
  }
  return quoted.append("\"");
}

const Runner kRunner{
    "tokenizer", "<name>.cases.json beside <name>.tokenizer.json: texts, their ids, and back",
    [](const Path& path) { return path.string().ends_with(kSuffix); },
    [](const Path& path, Report& report) {
      const std::string file = path.filename().string(), stem = file.substr(0, file.size() - kSuffix.size());
      const Tokenizer tokenizer =
          Tokenizer::from_file((path.parent_path() / (stem + ".tokenizer.json")).string());
      const Value cases = read_json(path.string());
      if (cases.array() == nullptr) throw Error("InvalidConfig", "the cases are not a list");
      for (const Value& c : *cases.array()) {
        const std::string text = c.get_string("text", ""), quoted = one_line(text);
        report.check(stem, "encode", tokenizer.encode(text) == ids_of(c), quoted);
        // What the post-processor adds has no text of its own.
        const std::string back = c.find("decoded") != nullptr
                                     ? tokenizer.decode(ids_of(c), true)
                                     : tokenizer.decode(tokenizer.encode(text, false));
        report.check(stem, "decode", back == c.get_string("decoded", text), quoted);
      }
    }};
const Registration kRegistered(kRunner);

}  // namespace
}  // namespace ashlar::golden
