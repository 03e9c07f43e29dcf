// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/io/mapped_file.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// The records of a zip archive whose data lie in the file as they are (method 0), so that they can be mapped.
// Where data begin is what an archive library keeps to itself (libzip tells neither that nor where a local
// header is), and inflating is what such a file must not need: so the directory is read here. Sizes come from
// the central directory, as torch leaves those of the local headers 0. Error kinds: NotAZip,
// CompressedRecord, EncryptedRecord, RecordOutOfFile (a record that is not wholly before the directory), and
// InvalidRecordName for one that appears twice or could lead out of a folder.
struct ZipRecord {
  std::string name;
  std::uint64_t offset = 0, bytes = 0;  // of the data, in the file
};

std::vector<ZipRecord> read_zip_directory(const MappedFile& file, std::string_view what);

// Whether every part of the path between slashes is a plain name.
bool plain_record_name(std::string_view name);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
