// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <string_view>
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
    if (!find(name, &p)) throw Error("TensorNotFound", concat("checkpoint: there is no tensor \"", name, "\""));
    return p;
  }
};

}  // namespace v0
}  // namespace ashlar
