// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

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

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    if (depth(ashlar::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz")) > ashlar::kJsonDepth)
      std::abort();
  } catch (const ashlar::Error&) {
  }
  return 0;
}
