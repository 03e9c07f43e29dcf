// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ashlar/core/parameters.hpp"
#include "ashlar/io/mapped_file.hpp"

namespace ashlar {
inline namespace v0 {

namespace detail {
struct PthStorage;
}

// A tensor of a .pth file: a strided view of a storage, which other tensors may share.
class PthTensor {
 public:
  PthTensor(DType dtype, std::vector<Index> shape, std::vector<Index> strides, std::uint64_t offset,
            std::shared_ptr<const detail::PthStorage> storage)
      : dtype_(dtype),
        shape_(std::move(shape)),
        strides_(std::move(strides)),
        offset_(offset),
        storage_(std::move(storage)) {}

  DType dtype() const { return dtype_; }
  const std::vector<Index>& shape() const { return shape_; }
  // Packed and row-major: where the file has it if it is so there, at an address that its type can have; else
  // a copy.
  Parameter parameter() const;

 private:
  DType dtype_;
  std::vector<Index> shape_, strides_;  // strides and offset in elements
  std::uint64_t offset_;
  std::shared_ptr<const detail::PthStorage> storage_;
};

// What torch.save wrote, as a tree.
class PthValue {
 public:
  using List = std::vector<PthValue>;                       // a list, a tuple or a set
  using Dict = std::vector<std::pair<PthValue, PthValue>>;  // in the order of the file
  // An object that is neither plain data nor a tensor, of which the file's name for its type is all that is
  // kept: "argparse.Namespace". Integers beyond 64 bits and byte strings are opaque too ("int", "bytes").
  struct Opaque {
    std::string type;
  };

  PthValue() = default;  // None
  template <class T>
  requires std::is_constructible_v<
      std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Dict, PthTensor, Opaque>, T>
  PthValue(T x) : data_(std::move(x)) {}

  bool is_none() const { return std::holds_alternative<std::monostate>(data_); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const std::string* string() const { return std::get_if<std::string>(&data_); }
  const List* list() const { return std::get_if<List>(&data_); }
  const Dict* dict() const { return std::get_if<Dict>(&data_); }
  const PthTensor* tensor() const { return std::get_if<PthTensor>(&data_); }
  const Opaque* opaque() const { return std::get_if<Opaque>(&data_); }

  // The entry of this key; null when there is none, or when this is no dictionary.
  const PthValue* find(std::string_view key) const;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Dict, PthTensor, Opaque> data_;
};

// A file that torch.save wrote: a zip archive of stored records (since torch 1.6), or a stream of pickles
// (before). Its pickle is read by a machine that knows the opcodes and the names that tensors and plain data
// need, and has nothing that it could execute: names of other types become PthValue::Opaque.
//
// Refused, by kind of Error: ForbiddenGlobal for a name that no checkpoint needs and that reaches for the
// system (os.system, builtins.eval), for a kind of tensor that is not read (sparse, quantized), and for a
// pickled object where the dictionary is expected; ForbiddenOpcode; PickleTruncated, PickleStackUnderflow,
// PickleBadMemo, PickleBadValue; PickleTooDeep for values more than 128 deep, inside themselves, or for a
// stack of more than 2^20 values; PickleTooLarge for more than 64 MiB, or values that would multiply;
// BadPersistentId; MissingRecord, StorageSizeMismatch, TensorOutOfStorage, InvalidStride; NotAZip,
// CompressedRecord, EncryptedRecord, RecordOutOfFile, InvalidRecordName; UnsupportedByteOrder; NotACheckpoint
// for files of TorchScript and for those from before 2017 in a tar archive. Opening allocates a small
// multiple of the pickle's size; tensors stay in the mapped file. Safe to share between threads.
class PthFile {
 public:
  explicit PthFile(const std::string& path) : PthFile(MappedFile(path)) {}
  explicit PthFile(MappedFile file);

  const PthValue& root() const { return *root_; }
  const MappedFile& file() const { return file_; }

  // The tensors of one dictionary of the tree. `level` is the keys that lead to it, with slashes between:
  // "params", "optimizer/state". Without it: "params_ema", "params", "state_dict" or "model", whichever comes
  // first in this order and holds tensors; else the root, if it does; else the only dictionary in the root
  // that does. "module." goes from the names if each of them begins with it (torch's DataParallel writes it).
  // Error("NotACheckpoint") names the dictionaries that would do.
  std::shared_ptr<const Parameters> parameters(std::string_view level = {}) const;

 private:
  MappedFile file_;
  std::shared_ptr<const PthValue> root_;
};

}  // namespace v0
}  // namespace ashlar
