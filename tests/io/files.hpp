// SPDX-License-Identifier: Apache-2.0
// What the tests of the loaders share: files built byte by byte, a folder that goes away, Error kinds.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "ashlar/core/error.hpp"
#include "ashlar/core/parameters.hpp"

namespace ashlar::test {

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "ashlar-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path(std::string_view name = {}) const { return (path_ / name).string(); }
  std::string write(std::string_view name, std::string_view bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

 private:
  std::filesystem::path path_;
};

inline std::string malformed(std::string_view name) { return concat(ASHLAR_GOLDENS, "/malformed/", name); }

inline std::string file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

// A safetensors file of this header, not padded, and these data.
inline std::string safetensors(std::string_view header, std::string_view data = {}) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> 8 * i);
  return bytes.append(header).append(data);
}

// "OK", or the kind of the Error that f throws.
template <class F>
std::string kind(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_GT(std::string_view(e.what()).size(), 10u) << e.kind();
    return e.kind();
  }
  return "OK";
}

// Element i of a parameter of this type.
template <class T>
T element(const Parameter& p, Index i) {
  EXPECT_EQ(p.dtype, dtype_of<T>);
  return static_cast<const T*>(p.data)[i];
}

// Reads every byte of every tensor: what is out of bounds shows under a sanitizer.
inline unsigned checksum(const Parameters& parameters) {
  unsigned sum = 0;
  for (const std::string& name : parameters.names()) {
    const Parameter p = parameters.at(name);
    const Index bytes = p.size() * bits(p.dtype) / 8;
    for (Index i = 0; i < bytes; ++i) sum = sum * 31 + static_cast<const unsigned char*>(p.data)[i];
  }
  return sum;
}

}  // namespace ashlar::test
