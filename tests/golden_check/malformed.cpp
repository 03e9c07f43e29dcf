// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/checkpoint.hpp"
#include "ashlar/io/json.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

// Opens a file as a user would and touches every tensor: "OK", or the kind of the Error.
std::string outcome(const Path& path) {
  try {
    const auto parameters = open_checkpoint(path.string());
    for (const std::string& name : parameters->names()) parameters->at(name);
    return "OK";
  } catch (const Error& e) {
    return e.kind();
  } catch (const std::exception& e) {
    return concat("an exception that is no Error: ", e.what());
  }
}

// `expected` begins with a kind, or with several separated by slashes; words behind it are remarks.
bool matches(const std::string& expected, const std::string& got) {
  const std::string kinds = concat("/", expected.substr(0, expected.find(' ')), "/");
  return kinds.find(concat("/", got, "/")) != std::string::npos;
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
        if (extension != ".safetensors" && extension != ".json") {
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
