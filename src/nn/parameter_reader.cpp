// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/parameter_reader.hpp"

#include <algorithm>
#include <cstring>

namespace ashlar {
inline namespace v0 {
namespace {

std::string text(std::span<const Index> shape) {
  std::string s = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) s.append(i ? ", " : "").append(std::to_string(shape[i]));
  return s.append("]");
}

}  // namespace

ParameterLookup::ParameterLookup(const Parameters& parameters, std::string prefix)
    : parameters_(&parameters), prefix_(std::move(prefix)), record_(std::make_shared<Record>()) {}

ParameterLookup ParameterLookup::scope(std::string_view name) const {
  ParameterLookup inner = *this;
  inner.prefix_ = concat(full(name), ".");
  return inner;
}

std::string ParameterLookup::full(std::string_view name) const { return concat(prefix_, name); }

bool ParameterLookup::contains(const Names& names) const {
  for (const std::string& name : names.spellings)
    if (parameters_->contains(full(name))) return true;
  return false;
}

std::string ParameterLookup::spelling(const Names& names) const {
  for (const std::string& name : names.spellings)
    if (parameters_->contains(full(name))) return full(name);
  std::string others;
  for (std::size_t i = 1; i < names.spellings.size(); ++i)
    others.append(i == 1 ? " (nor " : ", ").append(full(names.spellings[i]));
  if (!others.empty()) others.append(")");
  throw Error("TensorNotFound",
              concat("checkpoint: there is no tensor \"", full(names.spellings.front()), "\"", others));
}

Parameter ParameterLookup::tensor(const Names& names, std::span<const Index> shape) const {
  if (const auto* source = dynamic_cast<const ParameterSource*>(parameters_)) {
    Parameter made = source->make(contains(names) ? spelling(names) : full(names.spellings.front()), shape);
    count().elements += made.size();
    return made;
  }
  Parameter p = tensor(names);
  if (!std::equal(shape.begin(), shape.end(), p.shape.begin(), p.shape.end()))
    throw Error("InvalidShape", concat("checkpoint: tensor \"", spelling(names), "\" has shape ",
                                       text(p.shape), ", expected ", text(shape)));
  return p;
}

Parameter ParameterLookup::tensor(const Names& names) const {
  const std::string name = spelling(names);
  Parameter p = parameters_->at(name);
  if (p.dtype != DType::f32 && p.dtype != DType::bf16 && p.dtype != DType::f16 && p.dtype != DType::f64)
    throw Error("UnsupportedType", concat("checkpoint: tensor \"", name, "\" is of type ",
                                          ashlar::name(p.dtype), ", expected f32, bf16, f16 or f64"));
  if (record_->read.insert(name).second) count().elements += p.size();
  return p;
}

Parameter ParameterLookup::flat(const Names& names, Index size) const {
  if (dynamic_cast<const ParameterSource*>(parameters_) != nullptr) return tensor(names, {size});
  Parameter p = tensor(names);
  if (p.size() != size)
    throw Error("InvalidShape", concat("checkpoint: tensor \"", spelling(names), "\" has shape ",
                                       text(p.shape), ", expected ", size, " elements"));
  p.shape = {size};
  return p;
}

void ParameterLookup::skip(const Names& names) const {
  if (contains(names)) record_->read.insert(spelling(names));
}

Index ParameterLookup::rows(const Names& names, Index otherwise) const {
  if (dynamic_cast<const ParameterSource*>(parameters_) != nullptr) return otherwise;
  const Parameter p = tensor(names);
  if (p.shape.empty())
    throw Error("InvalidShape",
                concat("checkpoint: tensor \"", spelling(names), "\" is a number, expected a matrix"));
  return p.shape.front();
}

Parameter slice(const Parameter& p, Index begin, Index end) {
  const Index entries = p.shape.empty() ? 0 : p.shape[0];
  if (begin < 0 || begin > end || end > entries)
    refuse("slice", "entries ", begin, " to ", end, " of a tensor of ", entries, " were asked for");
  Parameter part = p;
  part.shape[0] = end - begin;
  if (entries != 0)
    part.data = static_cast<const std::byte*>(p.data) + begin * (p.size() / entries) * bits(p.dtype) / 8;
  return part;
}

Parameter take(const Parameter& p, std::span<const Index> entries) {
  const Index count = static_cast<Index>(entries.size()), all = p.shape.empty() ? 0 : p.shape[0];
  bool in_order = true;
  for (Index i = 0; i < count; ++i) {
    const Index entry = entries[static_cast<std::size_t>(i)];
    if (entry < 0 || entry >= all) refuse("take", "entries[", i, "] is ", entry, ", expected 0 to ", all - 1);
    in_order = in_order && entry == entries[0] + i;
  }
  if (in_order) return count == 0 ? slice(p, 0, 0) : slice(p, entries[0], entries[0] + count);
  const Index bytes = p.size() / all * bits(p.dtype) / 8;
  auto copy = std::make_shared<Tensor<std::byte, 1>>(std::array<Index, 1>{count * bytes});
  for (Index i = 0; i < count; ++i)
    std::memcpy(copy->data() + i * bytes,
                static_cast<const std::byte*>(p.data) + entries[static_cast<std::size_t>(i)] * bytes,
                static_cast<std::size_t>(bytes));
  Parameter taken{copy->data(), p.dtype, p.shape, copy};
  taken.shape[0] = count;
  return taken;
}

Parameter transpose(const Parameter& matrix) {
  if (matrix.shape.size() != 2) refuse("transpose", "the tensor is not a matrix");
  const Index rows = matrix.shape[0], columns = matrix.shape[1];
  const auto bytes = static_cast<std::size_t>(bits(matrix.dtype) / 8);
  auto copy = std::make_shared<Tensor<std::byte, 1>>(
      std::array<Index, 1>{rows * columns * static_cast<Index>(bytes)});
  const auto* from = static_cast<const std::byte*>(matrix.data);
  constexpr Index kBlock = 32;  // whose rows and columns stay in the cache
  for (Index r0 = 0; r0 < rows; r0 += kBlock)
    for (Index c0 = 0; c0 < columns; c0 += kBlock)
      for (Index r = r0; r < std::min(rows, r0 + kBlock); ++r)
        for (Index c = c0; c < std::min(columns, c0 + kBlock); ++c)
          std::memcpy(copy->data() + (c * rows + r) * static_cast<Index>(bytes),
                      from + (r * columns + c) * static_cast<Index>(bytes), bytes);
  return {copy->data(), matrix.dtype, {columns, rows}, copy};
}

void ParameterLookup::expect_all_read(const std::function<bool(std::string_view name)>& ignore) const {
  constexpr std::size_t kNamed = 4;
  std::size_t unused = 0;
  std::string first;
  for (const std::string& name : parameters_->names()) {
    if (record_->read.contains(name) || ignore(name)) continue;
    if (unused++ < kNamed) first.append(first.empty() ? "\"" : ", \"").append(name).append("\"");
  }
  if (unused == 0) return;
  throw Error("UnusedTensor",
              concat("checkpoint: the model does not use ", unused,
                     unused == 1 ? " tensor: " : " tensors: ", first, unused > kNamed ? ", ..." : ""));
}

}  // namespace v0
}  // namespace ashlar
