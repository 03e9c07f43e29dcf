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

// A record of a zip archive whose data lie in the file as they are (method 0), so that they can be mapped.
struct ZipRecord {
  std::string name;
  std::uint64_t offset = 0, bytes = 0;  // of the data, in the file; offset is 0 when there are none
};

// All records, in the order of the central directory, from which their sizes come: torch leaves those of the
// local headers 0. Error kinds: NotAZip, CompressedRecord, EncryptedRecord, RecordOutOfFile (a record that is
// not wholly before the directory), and InvalidRecordName for one that appears twice or could lead out of a
// folder. The archive is libzip's to read.
std::vector<ZipRecord> read_zip_directory(const MappedFile& file, std::string_view what);

// Whether every part of the path between slashes is a plain name.
bool plain_record_name(std::string_view name);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
