// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/checkpoint.hpp"
#include "ashlar/io/json.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

// Opens a file as a user would and touches every tensor: "OK", or the kind of the Error and its sentence.
std::string outcome(const Path& path) {
  try {
    const auto parameters = open_checkpoint(path.string());
    for (const std::string& name : parameters->names()) parameters->at(name);
    return "OK";
  } catch (const Error& e) {
    return concat(e.kind(), " ", e.what());
  } catch (const std::exception& e) {
    return concat("an exception that is no Error: ", e.what());
  }
}

// `expected` begins with a kind, or with several separated by slashes. The word behind it is a name that the
// sentence must have, unless it is a remark in brackets.
bool matches(const std::string& expected, const std::string& got) {
  const std::size_t space = std::min(expected.find(' '), expected.size());
  const std::string kinds = concat("/", expected.substr(0, space), "/");
  if (kinds.find(concat("/", got.substr(0, got.find(' ')), "/")) == std::string::npos) return false;
  std::string name = expected.substr(std::min(space + 1, expected.size()));
  name = name.substr(0, name.find(' '));
  return name.starts_with('(') || got.find(name) != std::string::npos;
}

const Runner kRunner{
    "malformed", "a directory with EXPECT.json: what must load and what must be refused, and how",
    [](const Path& path) { return std::filesystem::exists(path / "EXPECT.json"); },
    [](const Path& path, Report& report) {
      const Value expectations = read_json((path / "EXPECT.json").string());
      if (expectations.array() == nullptr) throw Error("InvalidConfig", "EXPECT.json is not a list");
      for (const Value& e : *expectations.array()) {
        const std::string file = e.get_string("file", ""), expected = e.get_string("expect", "");
        const Path extension = Path(file).extension();
        if (extension != ".safetensors" && extension != ".json" && extension != ".pth") {
          report.skip("malformed", file);
          continue;
        }
        const std::string got = outcome(path / file);
        report.check("malformed", file, matches(expected, got), concat("expected ", expected, ", got ", got));
      }
    }};
const Registration kRegistered(kRunner);

}  // namespace
}  // namespace ashlar::golden
