// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "ashlar/io/checkpoint.hpp"
#include "ashlar/io/safetensors.hpp"

namespace {

using namespace ashlar;

std::shared_ptr<const Parameters> shard(std::string_view header) {
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  bytes.append(header).append("x");
  return std::make_shared<const SafetensorsFile>(MappedFile::from_bytes(std::move(bytes), "shard"));
}

}  // namespace

// The index asks only for names of files beside it, and what opens has each tensor that it lists.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const auto a = shard(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})");
  static const auto b = shard(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})");
  try {
    const auto checkpoint =
        open_sharded({reinterpret_cast<const char*>(data), size}, "fuzz", [](const std::string& name) {
          if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos ||
              name.find('\0') != name.npos)
            std::abort();
          if (name == "a.safetensors" || name == "ok_min.safetensors") return a;
          if (name != "b") throw Error("FileNotFound", concat("there is no shard \"", name, "\""));
          return b;
        });
    for (const std::string& name : checkpoint->names())
      if (checkpoint->at(name).size() != 1) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
