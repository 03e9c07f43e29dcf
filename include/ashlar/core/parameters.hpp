// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ashlar/core/any_view.hpp"

namespace ashlar {
inline namespace v0 {

// One tensor of a checkpoint, packed and row-major, where the file has it.
struct Parameter {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::vector<Index> shape;
  std::shared_ptr<const void> owner;  // keeps `data` alive

  Index size() const {
    Index n = 1;
    for (Index e : shape) n *= e;
    return n;
  }
};

// Tensors by name: a checkpoint file, a set of shards, a part of a golden file, random weights.
class Parameters {
 public:
  virtual ~Parameters() = default;
  virtual std::vector<std::string> names() const = 0;
  // False when there is no tensor of this name; `into` may be null to ask only that.
  virtual bool find(std::string_view name, Parameter* into) const = 0;

  bool contains(std::string_view name) const { return find(name, nullptr); }
  // Error("TensorNotFound") when there is none.
  Parameter at(std::string_view name) const {
    Parameter p;
    if (!find(name, &p))
      throw Error("TensorNotFound", concat("checkpoint: there is no tensor \"", name, "\""));
    return p;
  }
};

// Tensors in memory, in front of those of another set: a checkpoint with some of its tensors replaced.
class ParameterMap : public Parameters {
 public:
  explicit ParameterMap(std::shared_ptr<const Parameters> behind = {}) : behind_(std::move(behind)) {}
  void set(std::string name, Parameter p) { mine_[std::move(name)] = std::move(p); }

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const auto& [name, p] : mine_) all.push_back(name);
    if (behind_)
      for (std::string& name : behind_->names())
        if (!mine_.contains(name)) all.push_back(std::move(name));
    return all;
  }
  bool find(std::string_view name, Parameter* into) const override {
    const auto at = mine_.find(name);
    if (at == mine_.end()) return behind_ && behind_->find(name, into);
    if (into != nullptr) *into = at->second;
    return true;
  }

 private:
  std::map<std::string, Parameter, std::less<>> mine_;
  std::shared_ptr<const Parameters> behind_;
};

// The tensors of another set whose names begin with `prefix`, under the rest of their names.
class PrefixedParameters : public Parameters {
 public:
  PrefixedParameters(std::shared_ptr<const Parameters> of, std::string prefix)
      : of_(std::move(of)), prefix_(std::move(prefix)) {}
  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const std::string& name : of_->names())
      if (name.starts_with(prefix_)) all.push_back(name.substr(prefix_.size()));
    return all;
  }
  bool find(std::string_view name, Parameter* into) const override {
    return of_->find(concat(prefix_, name), into);
  }

 private:
  std::shared_ptr<const Parameters> of_;
  std::string prefix_;
};

}  // namespace v0
}  // namespace ashlar
