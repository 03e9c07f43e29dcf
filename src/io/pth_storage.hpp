// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/io/mapped_file.hpp"
#include "src/io/pickle.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// The bytes of a storage in its file.
struct PthStorage {
  PthStorage(MappedFile f, std::uint64_t at, std::uint64_t count)
      : file(std::move(f)), offset(at), bytes(count) {}

  // The first byte, at a multiple of `alignment`: in the file, or a copy that all who hold it share.
  std::shared_ptr<const std::byte> data(std::size_t alignment) const;

  MappedFile file;
  std::uint64_t offset, bytes;

 private:
  mutable std::mutex mutex_;
  mutable std::weak_ptr<const std::byte> copy_;
};

// A pickle that was read, and where its storages are: as many as in the heap, in the same order.
struct PthContents {
  std::string text;  // the heap's strings are views of it
  PickleHeap heap;
  PickleItem root;
  std::vector<std::shared_ptr<const PthStorage>> storages;
};

// Reads a zip archive or a legacy stream, whichever the file is.
std::unique_ptr<const PthContents> read_pth(const MappedFile& file, std::string_view what);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
