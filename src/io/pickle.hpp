// SPDX-License-Identifier: Apache-2.0
// Python's pickle format, the part of it that torch.save uses for checkpoints. Nothing is looked up, called
// or constructed: a global is a name, and a call of one is a tensor, a dictionary, or an opaque value.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ashlar/core/dtype.hpp"
#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

inline constexpr std::uint64_t kPickleBytes = 64u << 20;           // of a pickle
inline constexpr std::size_t kPickleStack = std::size_t{1} << 20;  // values on the stack
inline constexpr std::size_t kPickleNodes = std::size_t{4} << 20;  // memo entries; values of a kind
inline constexpr int kPickleDepth = 128;                           // containers inside one another

// What a global's name means to the machine.
enum class PickleName : std::uint8_t {
  opaque,
  ordered_dict,
  rebuild_tensor,     // torch._utils: (storage, offset, size, stride)
  rebuild_tensor_v2,  // and (requires_grad, hooks[, metadata])
  rebuild_tensor_v3,  // and (requires_grad, hooks, dtype[, metadata])
  parameter,          // (tensor, ...)
  size,               // torch.Size: a tuple
  storage,            // torch.FloatStorage and so on
  untyped_storage,    // bytes
  dtype               // torch.float32 and so on
};

struct PickleGlobal {
  PickleName meaning = PickleName::opaque;
  DType dtype = DType::u8;
  std::string_view module, name;
};

// The meaning of module.name. Error("ForbiddenGlobal") for what no checkpoint needs.
PickleGlobal pickle_global(std::string_view module, std::string_view name, std::string_view what);

// A value, or where in its PickleHeap it is.
struct PickleItem {
  enum Kind : std::uint8_t {
    none,
    boolean,
    integer,
    real,
    string,
    list,
    tuple,
    dict,
    global,
    opaque,
    storage,
    tensor
  };
  Kind kind = none;
  union {
    std::int64_t integer_value = 0;
    double real_value;
    std::size_t index;
  };

  static PickleItem of(std::int64_t i, Kind kind = integer) {
    PickleItem item;
    item.kind = kind, item.integer_value = i;
    return item;
  }
  static PickleItem of_real(double x) {
    PickleItem item;
    item.kind = real, item.real_value = x;
    return item;
  }
  static PickleItem at(Kind kind, std::size_t index) {
    PickleItem item;
    item.kind = kind, item.index = index;
    return item;
  }
  bool is_container() const { return kind == list || kind == tuple || kind == dict; }
};

// The bytes that a persistent id stands for.
struct PickleStorage {
  std::string_view key;
  DType dtype = DType::u8;
  bool untyped = false;
  std::uint64_t numel = 0, bytes = 0;
};

// A part of a storage, as files from before torch 1.6 may have it.
struct PickleStorageView {
  std::size_t storage = 0;
  std::uint64_t offset = 0, numel = 0;  // in elements
};

struct PickleTensor {
  std::size_t storage = 0;
  DType dtype = DType::f32;
  std::vector<Index> shape, strides;
  std::uint64_t offset = 0;  // in elements, from the storage's first
};

// All that a pickle made. Strings are views of its text.
struct PickleHeap {
  std::vector<std::string_view> strings;
  std::vector<std::vector<PickleItem>> lists;  // and tuples
  std::vector<std::vector<std::pair<PickleItem, PickleItem>>> dicts;
  std::vector<PickleGlobal> globals;  // also the types of opaque values
  std::vector<PickleStorage> storages;
  std::vector<PickleStorageView> storage_views;
  std::vector<PickleTensor> tensors;
};

// Runs one pickle.
class Unpickler {
 public:
  // `what` is what messages call the file; `text` begins with the pickle and stays in place.
  Unpickler(std::string_view text, std::string_view what, PickleHeap& heap)
      : text_(text), what_(what), heap_(heap) {}
  // What the pickle stands for. size() is then its length.
  PickleItem run();
  std::size_t size() const { return at_; }

 private:
  template <class... Parts>
  [[noreturn]] void fail(std::string_view kind, const Parts&... parts) const {
    throw Error(kind, concat(what_, ": ", parts...));
  }
  std::string_view take(std::uint64_t bytes);
  std::string_view take_line();
  std::uint64_t take_number(int bytes);  // little-endian
  std::uint64_t take_length(int bytes);  // the same, of what follows

  void push(PickleItem item);
  PickleItem pop();
  PickleItem& top();
  std::size_t pop_mark();  // where the values above it begin
  std::vector<PickleItem> pop_to_mark();
  template <class T>
  std::size_t add(std::vector<T>& to, T value) const {
    if (to.size() >= kPickleNodes)
      fail("PickleTooLarge", "its pickle makes more than ", kPickleNodes, " values of a kind");
    to.push_back(std::move(value));
    return to.size() - 1;
  }

  void step(unsigned char opcode);
  void push_string(std::string_view text, bool utf8);
  void push_long(std::string_view bytes);
  void push_tuple(std::vector<PickleItem> items);
  void push_opaque(std::string_view type);
  void push_global(std::string_view module, std::string_view name);
  void stack_global();
  void remember(std::uint64_t slot);
  void recall(std::uint64_t slot);
  void append(std::vector<PickleItem> items);
  void set_items(const std::vector<PickleItem>& items);
  void build();
  void reduce();

  // pickle_torch.cpp
  void persistent_storage();
  PickleItem call(const PickleGlobal& global, const std::vector<PickleItem>& arguments);
  PickleItem ordered_dict(const std::vector<PickleItem>& arguments);
  PickleItem rebuild_tensor(const PickleGlobal& global, const std::vector<PickleItem>& arguments);
  std::uint64_t storage_of(const PickleStorage& storage);
  std::int64_t integer(const PickleItem& item, std::string_view meaning) const;
  std::vector<Index> integers(const PickleItem& item, std::string_view meaning) const;
  void check_tensor(const PickleTensor& t, const PickleStorageView& view) const;

  std::string_view text_, what_;
  PickleHeap& heap_;
  std::size_t at_ = 0;
  std::vector<PickleItem> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, PickleItem> memo_;
  std::unordered_map<std::string_view, std::size_t> storage_by_key_;
};

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
