// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>

#include "ashlar/io/pth.hpp"

namespace {

using namespace ashlar;

volatile unsigned char sink;

// Reads every tensor whole, and ends the program where a tree is deeper than promised.
void visit(const PthValue& value, int depth) {
  if (depth > 128) std::abort();
  if (const auto* list = value.list())
    for (const PthValue& member : *list) visit(member, depth + 1);
  if (const auto* dict = value.dict())
    for (const auto& [key, member] : *dict) {
      visit(key, depth + 1), visit(member, depth + 1);
      if (key.string() != nullptr && value.find(*key.string()) != &member) std::abort();
    }
  if (const PthTensor* tensor = value.tensor()) {
    const Parameter p = tensor->parameter();
    const auto element = static_cast<std::size_t>(bits(p.dtype) / 8);
    if (p.shape != tensor->shape() || reinterpret_cast<std::uintptr_t>(p.data) % element != 0) std::abort();
    const auto bytes = static_cast<std::size_t>(p.size()) * element;
    // A tensor that repeats its storage may have 64 MiB: its ends are enough.
    const auto* at = static_cast<const unsigned char*>(p.data);
    for (std::size_t i = 0; i < std::min<std::size_t>(bytes, 4096); ++i) sink = at[i] ^ at[bytes - 1 - i];
  }
}

}  // namespace

// A file is refused, or is a tree of bounded depth whose tensors can be read.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    const PthFile file(
        MappedFile::from_bytes(std::string(reinterpret_cast<const char*>(data), size), "fuzz"));
    visit(file.root(), 0);
    const auto parameters = file.parameters();
    for (const std::string& name : parameters->names())
      if (!parameters->contains(name)) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
