// SPDX-License-Identifier: Apache-2.0
// Torch files built byte by byte: pickles by opcode, and zip archives of stored records.
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ashlar/io/pth.hpp"
#include "tests/io/files.hpp"

namespace ashlar::test {

inline std::string little(std::uint64_t x, int bytes) {
  std::string s;
  for (int i = 0; i < bytes; ++i) s += static_cast<char>(i < 8 ? x >> 8 * i : 0);
  return s;
}

// What differs from what torch writes.
struct ZipOptions {
  int method = 0, flags = 0;
  std::uint64_t directory_size_off = 0;  // added to the directory's size in the end record
  bool zip64 = false;                    // an end record and sizes of 64 bits
  std::string comment, local_extra;
};

using Records = std::vector<std::pair<std::string, std::string>>;

inline std::string zip(const Records& records, const ZipOptions& o = {}) {
  std::string bytes, directory;
  for (const auto& [name, data] : records) {
    const std::uint64_t at = bytes.size();
    bytes += concat("PK\3\4", little(20, 2), little(static_cast<unsigned>(o.flags), 2),
                    little(static_cast<unsigned>(o.method), 2), little(0, 16), little(name.size(), 2),
                    little(o.local_extra.size(), 2), name, o.local_extra, data);
    std::string extra;
    if (o.zip64)
      extra =
          concat(little(1, 2), little(24, 2), little(data.size(), 8), little(data.size(), 8), little(at, 8));
    const std::uint64_t size = o.zip64 ? 0xffffffff : data.size();
    directory += concat("PK\1\2", little(20, 2), little(20, 2), little(static_cast<unsigned>(o.flags), 2),
                        little(static_cast<unsigned>(o.method), 2), little(0, 8), little(size, 4),
                        little(size, 4), little(name.size(), 2), little(extra.size(), 2), little(0, 10),
                        little(o.zip64 ? 0xffffffff : at, 4), name, extra);
  }
  const std::uint64_t start = bytes.size(), size = directory.size() + o.directory_size_off,
                      n = records.size();
  bytes += directory;
  if (o.zip64) {
    const std::uint64_t at = bytes.size();
    bytes += concat("PK\6\6", little(44, 8), little(45, 2), little(45, 2), little(0, 8), little(n, 8),
                    little(n, 8), little(size, 8), little(start, 8));
    bytes += concat("PK\6\7", little(0, 4), little(at, 8), little(1, 4));
  }
  return bytes + concat("PK\5\6", little(0, 4), little(o.zip64 ? 0xffff : n, 2),
                        little(o.zip64 ? 0xffff : n, 2), little(o.zip64 ? 0xffffffff : size, 4),
                        little(o.zip64 ? 0xffffffff : start, 4), little(o.comment.size(), 2), o.comment);
}

// Pickle opcodes with their arguments.
inline std::string text(std::string_view s) { return concat("X", little(s.size(), 4), s); }
inline std::string integer(std::int64_t i) {
  return concat("\x8a\x08", little(static_cast<std::uint64_t>(i), 8));
}
inline std::string global(std::string_view module, std::string_view name) {
  return concat("c", module, "\n", name, "\n");
}
inline std::string tuple(const std::vector<std::string>& members) {
  std::string s = "(";
  for (const std::string& m : members) s += m;
  return s + "t";
}
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string s = "}(";
  for (const auto& [key, value] : entries) s += concat(text(key), value);
  return s + "u";
}
inline std::string call(std::string_view module, std::string_view name,
                        const std::vector<std::string>& arguments) {
  return concat(global(module, name), tuple(arguments), "R");
}
inline std::string storage(std::string_view key, std::int64_t numel, std::string_view type = "FloatStorage") {
  return concat(tuple({text("storage"), global("torch", type), text(key), text("cpu"), integer(numel)}), "Q");
}
inline std::string integers(const std::vector<std::int64_t>& all) {
  std::vector<std::string> members;
  for (const std::int64_t i : all) members.push_back(integer(i));
  return tuple(members);
}
inline std::string tensor(const std::string& of, std::int64_t offset, const std::vector<std::int64_t>& size,
                          const std::vector<std::int64_t>& stride) {
  return call("torch._utils", "_rebuild_tensor_v2",
              {of, integer(offset), integers(size), integers(stride), "\x89", "N"});
}
inline std::string pickled(std::string_view value) { return concat("\x80\x02", value, "."); }

template <class T>
std::string raw(std::initializer_list<T> values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::copy(values.begin(), values.end(), reinterpret_cast<T*>(bytes.data()));
  return bytes;
}

// An archive with this value in its pickle, and these storages.
inline std::string pth(std::string_view value, const Records& storages = {}) {
  Records records{{"archive/data.pkl", pickled(value)}, {"archive/version", "3\n"}};
  for (const auto& [key, bytes] : storages) records.emplace_back(concat("archive/data/", key), bytes);
  return zip(records);
}

inline PthFile open_pth(std::string bytes) {
  return PthFile(MappedFile::from_bytes(std::move(bytes), "test.pth"));
}

// "OK", or the kind of the Error that opening these bytes and reading their tensors gives.
inline std::string pth_kind(const std::string& bytes) {
  return kind([&] { checksum(*open_pth(bytes).parameters()); });
}

}  // namespace ashlar::test
