// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/parameter_reader.hpp"

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
