// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {

// The bytes of a file, read only. Copies share it; it stays open and mapped as long as a copy or an owner()
// lives. A parser takes what it must check through read(), which reports a file that has shrunk; a page of
// data() that the file no longer has is a SIGBUS.
class MappedFile {
 public:
  // Error("FileNotFound"), or Error("FileUnreadable") for a directory, a pipe, a file without permission.
  explicit MappedFile(const std::string& path);
  // Bytes in memory instead of a file; `name` is what messages call them.
  static MappedFile from_bytes(std::string bytes, std::string name);

  const std::string& name() const;
  std::uint64_t size() const;
  // size() bytes; null when there are none.
  const std::byte* data() const;
  // Copies bytes [offset, offset + count), which lie inside the file. Error("FileUnreadable") when they
  // cannot be read.
  void read(std::uint64_t offset, std::uint64_t count, void* into) const;
  std::string read(std::uint64_t offset, std::uint64_t count) const;
  // Keeps data() alive.
  std::shared_ptr<const void> owner() const { return state_; }

 private:
  struct State;
  MappedFile() = default;
  std::shared_ptr<const State> state_;
};

// The whole of a text file. Errors as MappedFile.
std::string read_text(const std::string& path);

}  // namespace v0
}  // namespace ashlar
