// SPDX-License-Identifier: Apache-2.0
#include "src/io/zip_archive.hpp"

#include <zip.h>

#include <algorithm>
#include <memory>
#include <unordered_set>

#include "src/io/utf8.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

// The shortest end record and directory entry, without the name.
constexpr std::uint64_t kEndBytes = 22, kEntryBytes = 46;

// A file as libzip reads it. The library does not say where in the file a record's data are; the place of the
// read that it makes for their first byte does.
class Source {
 public:
  explicit Source(const MappedFile& file) : file_(file) { zip_error_init(&error_); }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  ~Source() { zip_error_fini(&error_); }

  std::uint64_t last_read() const { return last_read_; }
  void forget_read() { last_read_ = file_.size(); }

  // The library's callback: no exception leaves it.
  static zip_int64_t answer(void* self, void* data, zip_uint64_t bytes, zip_source_cmd_t command) {
    auto& source = *static_cast<Source*>(self);
    try {
      return source.answer(data, bytes, command);
    } catch (const std::exception&) {
      zip_error_set(&source.error_, ZIP_ER_READ, 0);
      return -1;
    }
  }

 private:
  zip_int64_t answer(void* data, zip_uint64_t bytes, zip_source_cmd_t command) {
    switch (command) {
      case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE,
                                              ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR, ZIP_SOURCE_FREE,
                                              ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL, ZIP_SOURCE_SUPPORTS, -1);
      case ZIP_SOURCE_OPEN: at_ = 0; return 0;
      case ZIP_SOURCE_READ: {
        const std::uint64_t n = std::min<std::uint64_t>(bytes, file_.size() - at_);
        file_.read(at_, n, data);
        last_read_ = at_;
        at_ += n;
        return static_cast<zip_int64_t>(n);
      }
      case ZIP_SOURCE_SEEK: {
        const zip_int64_t to = zip_source_seek_compute_offset(at_, file_.size(), data, bytes, &error_);
        if (to < 0) return -1;
        at_ = static_cast<std::uint64_t>(to);
        return 0;
      }
      case ZIP_SOURCE_TELL: return static_cast<zip_int64_t>(at_);
      case ZIP_SOURCE_STAT: {
        auto* stat = static_cast<zip_stat_t*>(data);
        zip_stat_init(stat);
        stat->valid = ZIP_STAT_SIZE;
        stat->size = file_.size();
        return sizeof(zip_stat_t);
      }
      case ZIP_SOURCE_ERROR: return zip_error_to_data(&error_, data, bytes);
      case ZIP_SOURCE_CLOSE:
      case ZIP_SOURCE_FREE: return 0;
      default: zip_error_set(&error_, ZIP_ER_OPNOTSUPP, 0); return -1;
    }
  }

  const MappedFile& file_;
  zip_error_t error_;
  std::uint64_t at_ = 0, last_read_ = 0;
};

class Reader {
 public:
  Reader(const MappedFile& file, std::string_view what) : file_(file), what_(what), source_(file) {
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t* source = zip_source_function_create(Source::answer, &source_, &error);
    if (source != nullptr) archive_.reset(zip_open_from_source(source, ZIP_RDONLY, &error));
    const std::string reason = archive_ == nullptr ? zip_error_strerror(&error) : "";
    if (archive_ == nullptr) zip_source_free(source);
    zip_error_fini(&error);
    if (archive_ == nullptr) fail("NotAZip", "not a whole zip archive: ", reason);
  }

  std::vector<ZipRecord> read() {
    const zip_int64_t entries = zip_get_num_entries(archive_.get(), 0);
    std::vector<ZipRecord> records;
    std::unordered_set<std::string> names;
    std::uint64_t directory = kEndBytes;  // at least so many bytes are at the end
    for (zip_int64_t i = 0; i < entries; ++i) {
      records.push_back(record(static_cast<zip_uint64_t>(i)));
      directory += kEntryBytes + records.back().name.size();
      if (!names.insert(records.back().name).second)
        fail("InvalidRecordName", "the record \"", records.back().name, "\" appears twice");
    }
    for (const ZipRecord& r : records)
      if (r.bytes > 0 && (r.offset > file_.size() || directory > file_.size() - r.offset ||
                          r.bytes > file_.size() - r.offset - directory))
        outside(r);
    return records;
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail(std::string_view kind, const Parts&... parts) const {
    throw Error(kind, concat(what_, ": ", parts...));
  }
  [[noreturn]] void outside(const ZipRecord& r) const {
    fail("RecordOutOfFile", "the record \"", r.name, "\" of ", r.bytes,
         " bytes is not wholly inside the file and before its directory");
  }

  ZipRecord record(zip_uint64_t i) {
    constexpr zip_uint64_t kNeeded = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                                     ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    zip_stat_t stat;
    zip_stat_init(&stat);
    if (zip_stat_index(archive_.get(), i, ZIP_FL_ENC_RAW, &stat) != 0 || (stat.valid & kNeeded) != kNeeded)
      fail("NotAZip", "entry ", i, " of its central directory is damaged");
    ZipRecord r{.name = stat.name, .bytes = stat.size};
    if (!plain_record_name(r.name))
      fail("InvalidRecordName", "a record's name has ", r.name.size(),
           " bytes and is not a relative path of plain names");
    if (stat.encryption_method != ZIP_EM_NONE)
      fail("EncryptedRecord", "the record \"", r.name, "\" is encrypted");
    if (stat.comp_method != ZIP_CM_STORE)
      fail("CompressedRecord", "the record \"", r.name,
           "\" is compressed, which torch.save does not do; expected stored records");
    if (std::max(stat.size, stat.comp_size) > file_.size()) outside(r);
    if (stat.size != stat.comp_size)
      fail("CompressedRecord", "the record \"", r.name, "\" has ", stat.comp_size, " bytes for ", stat.size);
    if (r.bytes > 0) r.offset = data_offset(i, r);
    return r;
  }

  std::uint64_t data_offset(zip_uint64_t i, const ZipRecord& r) {
    const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> data(
        zip_fopen_index(archive_.get(), i, ZIP_FL_COMPRESSED), zip_fclose);
    char first = 0;
    source_.forget_read();
    if (data == nullptr || zip_fread(data.get(), &first, 1) != 1) outside(r);
    return source_.last_read();
  }

  const MappedFile& file_;
  std::string_view what_;
  Source source_;
  std::unique_ptr<zip_t, void (*)(zip_t*)> archive_{nullptr, zip_discard};
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
