// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>

#include "ashlar/io/huggingface.hpp"
#include "ashlar/io/json.hpp"

namespace {

using ashlar::Value;

// The deepest nesting; ends the program when an object has a name twice.
int depth(const Value& v) {
  int inside = 0;
  if (const auto* array = v.array())
    for (const Value& member : *array) inside = std::max(inside, depth(member));
  if (const auto* object = v.object())
    for (const auto& [name, member] : *object) {
      if (v.find(name) != &member) std::abort();
      inside = std::max(inside, depth(member));
    }
  return v.array() != nullptr || v.object() != nullptr ? inside + 1 : 0;
}

}  // namespace

// A text is read within its limits, and a configuration is what JSON is and more.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  bool is_json = false;
  try {
    if (depth(ashlar::parse_json(text, "fuzz")) > ashlar::kJsonDepth) std::abort();
    is_json = true;
  } catch (const ashlar::Error&) {
  }
  try {
    ashlar::parse_config(text, "fuzz");
  } catch (const ashlar::Error&) {
    if (is_json) std::abort();
  }
  return 0;
}
