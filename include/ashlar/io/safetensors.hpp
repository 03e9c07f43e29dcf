// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <mutex>
#include <utility>

#include "ashlar/core/parameters.hpp"
#include "ashlar/io/mapped_file.hpp"

namespace ashlar {
inline namespace v0 {

// The "__metadata__" of a safetensors file.
using SafetensorsMetadata = std::map<std::string, std::string, std::less<>>;

// A safetensors file (github.com/huggingface/safetensors): 8 bytes N, little-endian | N bytes of JSON that
// say each tensor's type, shape and place | data. Opening reads the header alone and checks all that the
// official reader checks, in its order: Error kinds HeaderTooSmall, HeaderTooLarge, InvalidHeaderLength,
// InvalidHeader, InvalidHeaderDeserialization, InvalidOffset, ValidationOverflow, MisalignedSlice,
// TensorInvalidInfo, MetadataIncompleteBuffer. Stricter than it: a name that appears twice is
// InvalidHeaderDeserialization, and extents that overflow Index without their zeros are ValidationOverflow.
// Parameters point into the mapped file. One that the file stores at an address that its type cannot have is
// copied, once for all who hold it. Safe to share between threads.
class SafetensorsFile : public Parameters {
 public:
  explicit SafetensorsFile(const std::string& path) : SafetensorsFile(MappedFile(path)) {}
  explicit SafetensorsFile(MappedFile file);

  // In the order of their data in the file.
  std::vector<std::string> names() const override;
  bool find(std::string_view name, Parameter* into) const override;
  const SafetensorsMetadata& metadata() const { return metadata_; }
  const MappedFile& file() const { return file_; }

 private:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<Index> shape;
    std::uint64_t offset, bytes;  // in the file
  };
  std::shared_ptr<const void> aligned_copy(std::size_t entry) const;

  MappedFile file_;
  std::vector<Entry> entries_;        // in the order of their data
  std::vector<std::size_t> by_name_;  // indices of entries_ by ascending name
  SafetensorsMetadata metadata_;
  mutable std::mutex mutex_;
  mutable std::map<std::size_t, std::weak_ptr<const void>> copies_;  // by index of entries_
};

// Writes tensors as the official writer does: wider types first, then by name, so that data are aligned. The
// file appears under its name when it is complete, in place of one that was there; after an
// Error("FileUnwritable") the old one is as it was. Refused: names that appear twice or are no UTF-8, the
// name "__metadata__", tensors of less than whole bytes.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Parameter>>& tensors,
                       const SafetensorsMetadata& metadata = {});
void write_safetensors(const std::string& path, const Parameters& tensors,
                       const SafetensorsMetadata& metadata = {});

}  // namespace v0
}  // namespace ashlar
