// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <initializer_list>
#include <set>
#include <span>

#include "ashlar/nn/backend.hpp"

namespace ashlar {
inline namespace v0 {

// Parameters that make whatever tensor a model requires, in the shape that it asks for, such as random
// weights. Its find() decides only about optional tensors and alternative spellings.
class ParameterSource : public Parameters {
 public:
  virtual Parameter make(std::string_view name, std::span<const Index> shape) const = 0;
};

// The spellings of one tensor's name, the usual one first.
struct Names {
  Names(const char* name) : spellings{name} {}
  Names(std::string name) : spellings{std::move(name)} {}
  Names(std::initializer_list<const char*> names) : spellings(names.begin(), names.end()) {}
  // Each spelling with `suffix` behind it.
  Names with(std::string_view suffix) const {
    Names longer = *this;
    for (std::string& name : longer.spellings) name += suffix;
    return longer;
  }
  std::vector<std::string> spellings;
};

// How much was read: what a token's decoding has to stream from memory.
struct ParameterCount {
  Index elements = 0;         // of all tensors
  Index matrix_elements = 0;  // of those that dense layers multiply with, the embedding included
  Index bytes = 0;            // as they are kept in memory, without packed second copies
  // Of these, what a token does not read: experts that it does not choose.
  Index idle_elements = 0, idle_bytes = 0;
};

// A checkpoint's tensors by their names below a prefix, shapes checked, with a record of what was read.
class ParameterLookup {
 public:
  ParameterLookup(const Parameters& parameters, std::string prefix = {});
  ParameterLookup scope(std::string_view name) const;

  // The whole name of `name` below this prefix.
  std::string full(std::string_view name) const;
  bool contains(const Names& names) const;
  // The first spelling that is present, of this shape and f32, bf16, f16 or f64. Error("TensorNotFound"),
  // Error("InvalidShape"), Error("UnsupportedType").
  Parameter tensor(const Names& names, std::span<const Index> shape) const;
  Parameter tensor(const Names& names, std::initializer_list<Index> shape) const {
    return tensor(names, std::span<const Index>(shape.begin(), shape.size()));
  }
  // Of any shape.
  Parameter tensor(const Names& names) const;
  // Of any shape with so many elements, as [size].
  Parameter flat(const Names& names, Index size) const;
  // Counts a tensor that is of no use as read, if it is there.
  void skip(const Names& names) const;
  // The first extent of a tensor, `otherwise` where tensors are made to measure.
  Index rows(const Names& names, Index otherwise) const;
  // Error("UnusedTensor") when the checkpoint has tensors that nobody read and `ignore` does not excuse.
  void expect_all_read(const std::function<bool(std::string_view name)>& ignore) const;

  ParameterCount& count() const { return record_->count; }

 private:
  std::string spelling(const Names& names) const;

  struct Record {
    std::set<std::string, std::less<>> read;
    ParameterCount count;
  };
  const Parameters* parameters_;
  std::string prefix_;
  std::shared_ptr<Record> record_;
};

// Entries [begin, end) of the first axis, where they are.
Parameter slice(const Parameter& p, Index begin, Index end);
// These entries of the first axis, one after another: where they are when each follows the one before it,
// else a copy.
Parameter take(const Parameter& p, std::span<const Index> entries);
// A copy with the two axes of a matrix exchanged.
Parameter transpose(const Parameter& matrix);

// The same, giving weights in the form of an execution context.
template <class Exec>
class ParameterReader : public ParameterLookup {
 public:
  using Matrix = typename Backend<Exec>::Matrix;
  using Vector = typename Backend<Exec>::Vector;

  ParameterReader(const Parameters& parameters, Exec& exec) : ParameterLookup(parameters), exec_(&exec) {}
  ParameterReader scope(std::string_view name) const { return {ParameterLookup::scope(name), *exec_}; }

  // [rows, columns]; `pack` when a dense layer multiplies with it.
  Matrix matrix(const Names& names, Index rows, Index columns, bool pack = true) const {
    return matrix(tensor(names, {rows, columns}), rows, columns, pack);
  }
  // A tensor, or a part of one, that was read before, as [rows, columns].
  Matrix matrix(const Parameter& p, Index rows, Index columns, bool pack = true) const {
    if (p.size() != rows * columns)
      refuse("ParameterReader", "a matrix of ", rows, " x ", columns, " was asked of ", p.size(),
             " elements");
    Matrix weight = Backend<Exec>::matrix(p, rows, columns, pack, *exec_);
    count().matrix_elements += p.size();
    count().bytes += p.size() * bits(weight.values().dtype) / 8;
    return weight;
  }
  // The filters of a convolution, [outputs, inputs / groups, kh, kw].
  typename Backend<Exec>::Filters filters(const Parameter& p, Index groups) const {
    count().matrix_elements += p.size();
    count().bytes += p.size() * static_cast<Index>(sizeof(float));
    return Backend<Exec>::filters(p, groups, *exec_);
  }
  Vector vector(const Names& names, Index size) const { return vector(to_floats(tensor(names, {size}))); }
  Vector vector(Tensor<float, 1> values) const {
    count().bytes += values.size() * static_cast<Index>(sizeof(float));
    return Backend<Exec>::vector(std::move(values), *exec_);
  }
  Exec& exec() const { return *exec_; }

 private:
  ParameterReader(ParameterLookup lookup, Exec& exec) : ParameterLookup(std::move(lookup)), exec_(&exec) {}
  Exec* exec_;
};

}  // namespace v0
}  // namespace ashlar
