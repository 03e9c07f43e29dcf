// SPDX-License-Identifier: Apache-2.0
#include "src/io/pth_storage.hpp"

#include <algorithm>
#include <unordered_map>

#include "ashlar/core/tensor.hpp"
#include "src/io/json_sax.hpp"
#include "src/io/zip_archive.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

constexpr std::string_view kZipMagic("PK\3\4", 4);
// The first pickle of a legacy stream: the integer 0x1950a86a20f9469cfc6c.
constexpr std::string_view kLegacyMagic("\x80\2\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
constexpr std::int64_t kLegacyProtocol = 1001;

class Container {
 public:
  Container(const MappedFile& file, std::string_view what)
      : file_(file), what_(what), contents_(std::make_unique<PthContents>()) {}

  std::unique_ptr<const PthContents> read() {
    const std::string start = file_.read(0, std::min<std::uint64_t>(file_.size(), 262));
    if (start.starts_with(kZipMagic) || start.starts_with("PK\5\6")) {
      read_zip();
    } else if (start.starts_with(kLegacyMagic)) {
      read_legacy();
    } else if (start.size() >= 262 && start.substr(257, 5) == "ustar") {
      fail("NotACheckpoint", "a tar archive, as torch wrote before 2017; save it again with a newer torch");
    } else if (start.starts_with("\x80")) {
      if (kLegacyMagic.starts_with(start))
        fail("PickleTruncated", "a legacy stream that ends in its first pickle");
      fail("NotACheckpoint", "a pickle that does not begin as torch.save begins it");
    } else {
      fail("NotAZip", "neither a zip archive nor a legacy stream of torch.save");
    }
    return std::move(contents_);
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail(std::string_view kind, const Parts&... parts) const {
    throw Error(kind, concat(what_, ": ", parts...));
  }
  PickleHeap& heap() { return contents_->heap; }

  void add_storage(std::uint64_t offset, std::uint64_t bytes) {
    contents_->storages.push_back(std::make_shared<const PthStorage>(file_, offset, bytes));
  }

  void read_zip() {
    std::unordered_map<std::string_view, const ZipRecord*> records;
    const std::vector<ZipRecord> directory = read_zip_directory(file_, what_);
    for (const ZipRecord& record : directory) records[record.name] = &record;

    const ZipRecord* pickle = nullptr;
    for (const ZipRecord& record : directory) {
      if (record.name.ends_with("/constants.pkl") || record.name.find("/code/") != record.name.npos)
        fail("NotACheckpoint", "a TorchScript archive, which holds a program; expected a state dictionary");
      if (record.name.find("/") != record.name.rfind("/") || !record.name.ends_with("/data.pkl")) continue;
      if (pickle != nullptr) fail("NotACheckpoint", "an archive with several data.pkl");
      pickle = &record;
    }
    if (pickle == nullptr) fail("NotACheckpoint", "a zip archive without the record data.pkl");
    const std::string prefix =
        pickle->name.substr(0, pickle->name.size() - std::string_view("data.pkl").size());

    if (const auto order = records.find(concat(prefix, "byteorder")); order != records.end()) {
      const std::string text =
          file_.read(order->second->offset, std::min<std::uint64_t>(order->second->bytes, 16));
      if (text != "little")
        fail("UnsupportedByteOrder", "its byte order is \"", shortened(text), "\", expected \"little\"");
    }
    if (pickle->bytes > kPickleBytes)
      fail("PickleTooLarge", "a pickle of ", pickle->bytes, " bytes, expected at most ", kPickleBytes);
    contents_->text = file_.read(pickle->offset, pickle->bytes);
    contents_->root = Unpickler(contents_->text, what_, heap()).run();

    for (const PickleStorage& storage : heap().storages) {
      const std::string name = concat(prefix, "data/", storage.key);
      const auto record = records.find(name);
      if (record == records.end())
        fail("MissingRecord", "there is no record data/", storage.key, " in the archive");
      if (record->second->bytes != storage.bytes)
        fail("StorageSizeMismatch", "the record data/", storage.key, " has ", record->second->bytes,
             " bytes, expected ", storage.bytes);
      add_storage(record->second->offset, storage.bytes);
    }
  }

  // Pickles one after another: the magic number, the protocol, the system, the object, and the keys of the
  // storages; then each storage in the order of the keys: a 64-bit count of elements, and those.
  void read_legacy() {
    contents_->text = file_.read(0, std::min(file_.size(), kPickleBytes));
    const std::string_view text = contents_->text;
    std::size_t at = kLegacyMagic.size();
    const auto next = [&](PickleHeap& heap) {
      Unpickler unpickler(text.substr(at), what_, heap);
      const PickleItem item = unpickler.run();
      at += unpickler.size();
      return item;
    };
    PickleHeap preamble;
    const PickleItem protocol = next(preamble);
    if (protocol.kind != PickleItem::integer || protocol.integer_value != kLegacyProtocol)
      fail("NotACheckpoint", "a legacy stream of an unknown version, expected ",
           static_cast<Index>(kLegacyProtocol));
    check_system(preamble, next(preamble));
    contents_->root = next(heap());
    PickleHeap tail;
    const PickleItem keys = next(tail);
    if (keys.kind != PickleItem::list) fail("PickleBadValue", "the keys of its storages are not a list");
    place_legacy_storages(tail, tail.lists[keys.index], at);
  }

  void check_system(const PickleHeap& preamble, const PickleItem& system) const {
    if (system.kind != PickleItem::dict)
      fail("NotACheckpoint", "a legacy stream without the writer's system");
    for (const auto& [key, value] : preamble.dicts[system.index])
      if (key.kind == PickleItem::string && preamble.strings[key.index] == "little_endian" &&
          (value.kind != PickleItem::boolean || value.integer_value == 0))
        fail("UnsupportedByteOrder", "it was written big-endian, expected little-endian");
  }

  void place_legacy_storages(const PickleHeap& tail, const std::vector<PickleItem>& keys, std::uint64_t at) {
    std::unordered_map<std::string_view, std::size_t> by_key;
    for (std::size_t i = 0; i < heap().storages.size(); ++i) by_key[heap().storages[i].key] = i;
    contents_->storages.resize(heap().storages.size());
    for (const PickleItem& item : keys) {
      const auto found =
          item.kind == PickleItem::string ? by_key.find(tail.strings[item.index]) : by_key.end();
      if (found == by_key.end() || contents_->storages[found->second] != nullptr)
        fail("BadPersistentId", "the list of storages has a key that no tensor uses, or one twice");
      const PickleStorage& storage = heap().storages[found->second];
      const auto outside = [&] {
        fail("RecordOutOfFile", "the storage \"", shortened(storage.key), "\", ", storage.bytes,
             " bytes from ", at, ", ends behind the file");
      };
      if (file_.size() - at < 8) outside();
      std::uint64_t numel = 0;
      for (const char c : [this, at] {
             std::string count = file_.read(at, 8);
             std::reverse(count.begin(), count.end());
             return count;
           }())
        numel = numel << 8 | static_cast<unsigned char>(c);
      at += 8;
      if (numel != storage.numel)
        fail("StorageSizeMismatch", "the storage \"", shortened(storage.key), "\" has ", numel,
             " elements in the file, and ", storage.numel, " in the pickle");
      if (storage.bytes > file_.size() - at) outside();
      contents_->storages[found->second] = std::make_shared<const PthStorage>(file_, at, storage.bytes);
      at += storage.bytes;
    }
    for (std::size_t i = 0; i < heap().storages.size(); ++i)
      if (contents_->storages[i] == nullptr)
        fail("MissingRecord", "the storage \"", shortened(heap().storages[i].key), "\" is not in the file");
  }

  const MappedFile& file_;
  std::string_view what_;
  std::unique_ptr<PthContents> contents_;
};

}  // namespace

std::shared_ptr<const std::byte> PthStorage::data(std::size_t alignment) const {
  const std::byte* mapped = file.data() + offset;
  if (reinterpret_cast<std::uintptr_t>(mapped) % alignment == 0) return {file.owner(), mapped};
  const std::lock_guard lock(mutex_);
  if (auto copy = copy_.lock()) return copy;
  const std::shared_ptr<void> memory(allocate(bytes), release);
  file.read(offset, bytes, memory.get());
  std::shared_ptr<const std::byte> copy(memory, static_cast<const std::byte*>(memory.get()));
  copy_ = copy;
  return copy;
}

std::unique_ptr<const PthContents> read_pth(const MappedFile& file, std::string_view what) {
  return Container(file, what).read();
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
