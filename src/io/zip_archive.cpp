// SPDX-License-Identifier: Apache-2.0
#include "src/io/zip_archive.hpp"

#include <algorithm>
#include <unordered_set>

#include "src/io/utf8.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

constexpr std::uint64_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kCentralBytes = 46,
                        kLocalBytes = 30, kCommentMost = 65535, kDirectoryMost = 256u << 20;
constexpr std::uint32_t kEnd = 0x06054b50, kLocator = 0x07064b50, kEnd64 = 0x06064b50, kCentral = 0x02014b50,
                        kLocal = 0x04034b50;

// A little-endian integer of `bytes` bytes; the caller has looked that they are there.
std::uint64_t number(std::string_view s, std::uint64_t at, int bytes) {
  std::uint64_t x = 0;
  for (int i = bytes - 1; i >= 0; --i) x = x << 8 | static_cast<unsigned char>(s[at + i]);
  return x;
}

struct Directory {
  std::uint64_t entries = 0, offset = 0, bytes = 0;
};

class Reader {
 public:
  Reader(const MappedFile& file, std::string_view what) : file_(file), what_(what) {}

  std::vector<ZipRecord> read() {
    const Directory directory = find_directory();
    const std::string text = file_.read(directory.offset, directory.bytes);
    std::vector<ZipRecord> records;
    std::unordered_set<std::string> names;
    std::uint64_t at = 0;
    for (std::uint64_t i = 0; i < directory.entries; ++i) {
      if (text.size() - at < kCentralBytes || number(text, at, 4) != kCentral)
        fail("NotAZip", "entry ", i, " of its central directory is damaged");
      ZipRecord record = entry(text, at, directory.offset);
      if (!names.insert(record.name).second)
        fail("InvalidRecordName", "the record \"", record.name, "\" appears twice");
      records.push_back(std::move(record));
    }
    if (at != text.size())
      fail("NotAZip", "its central directory has ", text.size(), " bytes, but its entries ", at);
    return records;
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail(std::string_view kind, const Parts&... parts) const {
    throw Error(kind, concat(what_, ": ", parts...));
  }

  // The end record closes the file, but for a comment whose length it states.
  Directory find_directory() const {
    const std::uint64_t size = file_.size();
    const std::uint64_t tail = std::min(size, kEndBytes + kCommentMost);
    const std::string text = file_.read(size - tail, tail);
    for (std::uint64_t back = kEndBytes; back <= tail; ++back) {
      const std::uint64_t at = tail - back;
      if (number(text, at, 4) != kEnd || number(text, at + 20, 2) != back - kEndBytes) continue;
      return directory(text.substr(at, kEndBytes), size - back);
    }
    fail("NotAZip", "a zip archive without its central directory: is the file complete?");
  }

  Directory directory(const std::string& end, std::uint64_t end_at) const {
    Directory d{number(end, 10, 2), number(end, 16, 4), number(end, 12, 4)};
    bool one_disk = number(end, 4, 2) == number(end, 6, 2) && number(end, 8, 2) == d.entries;
    std::uint64_t limit = end_at;
    if (d.entries == 0xffff || d.offset == 0xffffffff || d.bytes == 0xffffffff) {
      std::uint64_t at = 0;
      std::string end64;
      if (end_at >= kLocatorBytes) {
        const std::string locator = file_.read(end_at - kLocatorBytes, kLocatorBytes);
        at = number(locator, 8, 8);
        if (number(locator, 0, 4) == kLocator && at <= end_at - kLocatorBytes &&
            end_at - kLocatorBytes - at >= kEnd64Bytes)
          end64 = file_.read(at, kEnd64Bytes);
      }
      if (end64.empty() || number(end64, 0, 4) != kEnd64)
        fail("NotAZip", "its 64-bit end record is missing or damaged");
      d = {number(end64, 32, 8), number(end64, 48, 8), number(end64, 40, 8)};
      one_disk = number(end64, 16, 4) == number(end64, 20, 4) && number(end64, 24, 8) == d.entries;
      limit = at;
    }
    if (!one_disk) fail("NotAZip", "the archive is spread over several files");
    if (d.offset > limit || d.bytes > limit - d.offset || d.bytes > kDirectoryMost ||
        d.entries > d.bytes / kCentralBytes)
      fail("NotAZip", "its central directory, ", d.entries, " entries in ", d.bytes, " bytes from ", d.offset,
           ", does not fit");
    return d;
  }

  // The record whose entry begins at text[at]; moves `at` behind it.
  ZipRecord entry(const std::string& text, std::uint64_t& at, std::uint64_t directory) const {
    const std::uint64_t flags = number(text, at + 8, 2), method = number(text, at + 10, 2),
                        name_bytes = number(text, at + 28, 2), extra_bytes = number(text, at + 30, 2),
                        comment_bytes = number(text, at + 32, 2);
    std::uint64_t packed = number(text, at + 20, 4), bytes = number(text, at + 24, 4),
                  local = number(text, at + 42, 4);
    if (text.size() - at - kCentralBytes < name_bytes + extra_bytes + comment_bytes)
      fail("NotAZip", "its central directory ends inside an entry");
    ZipRecord record{text.substr(at + kCentralBytes, name_bytes)};
    if (!plain_record_name(record.name))
      fail("InvalidRecordName", "a record's name has ", name_bytes,
           " bytes and is not a relative path of plain names");
    widen(std::string_view(text).substr(at + kCentralBytes + name_bytes, extra_bytes), bytes, packed, local);
    at += kCentralBytes + name_bytes + extra_bytes + comment_bytes;

    if ((flags & 1) != 0) fail("EncryptedRecord", "the record \"", record.name, "\" is encrypted");
    if (method != 0)
      fail("CompressedRecord", "the record \"", record.name,
           "\" is compressed, which torch.save does not do; expected stored records");
    record.bytes = bytes;
    record.offset = data_offset(record.name, local, std::max(bytes, packed), directory);
    if (packed != bytes)
      fail("CompressedRecord", "the record \"", record.name, "\" has ", packed, " bytes for ", bytes);
    return record;
  }

  // The zip64 field of an entry holds those of the three numbers that do not fit 32 bits, in this order.
  static void widen(std::string_view extra, std::uint64_t& bytes, std::uint64_t& packed,
                    std::uint64_t& local) {
    while (extra.size() >= 4) {
      const std::uint64_t id = number(extra, 0, 2);
      std::uint64_t left = std::min<std::uint64_t>(number(extra, 2, 2), extra.size() - 4);
      std::string_view field = extra.substr(4, left);
      extra.remove_prefix(4 + left);
      if (id != 1) continue;
      for (std::uint64_t* x : {&bytes, &packed, &local}) {
        if (*x != 0xffffffff || field.size() < 8) continue;
        *x = number(field, 0, 8);
        field.remove_prefix(8);
      }
    }
  }

  // A local header's name and extra field may be longer than the directory's: torch pads the data there.
  std::uint64_t data_offset(const std::string& name, std::uint64_t local, std::uint64_t bytes,
                            std::uint64_t directory) const {
    const auto outside = [&] {
      fail("RecordOutOfFile", "the record \"", name, "\", ", bytes, " bytes with a header at ", local,
           ", is not wholly inside the file and before its directory");
    };
    if (local > directory || directory - local < kLocalBytes) outside();
    const std::string header = file_.read(local, kLocalBytes);
    if (number(header, 0, 4) != kLocal) outside();
    const std::uint64_t name_bytes = number(header, 26, 2),
                        before = kLocalBytes + name_bytes + number(header, 28, 2);
    if (directory - local < before || directory - local - before < bytes) outside();
    if (file_.read(local + kLocalBytes, name_bytes) != name)
      fail("InvalidRecordName", "the record \"", name, "\" has another name in its own header");
    return local + before;
  }

  const MappedFile& file_;
  std::string_view what_;
};

}  // namespace

bool plain_record_name(std::string_view name) {
  if (name.ends_with('/')) name.remove_suffix(1);  // a folder
  if (name.empty() || find_invalid_utf8(name) != name.size()) return false;
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == '\\' || c == ':' || c == 0x7f) return false;
  for (;;) {
    const std::size_t slash = name.find('/');
    const std::string_view part = name.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == name.npos) return true;
    name.remove_prefix(slash + 1);
  }
}

std::vector<ZipRecord> read_zip_directory(const MappedFile& file, std::string_view what) {
  return Reader(file, what).read();
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
