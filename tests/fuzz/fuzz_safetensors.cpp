// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>

#include "ashlar/io/safetensors.hpp"

// What opens is consistent: every tensor is found, lies at an address its type can have, and can be read
// whole; together they have all the bytes behind the header.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace ashlar;
  try {
    const SafetensorsFile file(
        MappedFile::from_bytes(std::string(reinterpret_cast<const char*>(data), size), "fuzz"));
    std::size_t header = 0, total = 0;
    for (int i = 7; i >= 0; --i) header = header << 8 | data[i];
    [[maybe_unused]] static volatile unsigned char sink;
    for (const std::string& name : file.names()) {
      const Parameter p = file.at(name);
      const auto bytes = static_cast<std::size_t>(p.size() * bits(p.dtype) / 8);
      if (reinterpret_cast<std::uintptr_t>(p.data) %
              static_cast<std::uintptr_t>(std::max<Index>(1, bits(p.dtype) / 8)) !=
          0)
        std::abort();
      for (std::size_t i = 0; i < bytes; ++i) sink = static_cast<const unsigned char*>(p.data)[i];
      [[maybe_unused]] Index stride = 1;  // overflows show under the sanitizer
      for (const Index extent : p.shape) stride *= std::max<Index>(extent, 1);
      total += bytes;
    }
    if (8 + header + total != size) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
