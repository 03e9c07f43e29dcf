// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>

#include "ashlar/nn/parameter_reader.hpp"

namespace ashlar {
inline namespace v0 {

// Random weights for benchmarks and tests: whatever tensor a model asks for exists, and holds what its name
// and the seed decide. Matrices are uniform with variance 1 / columns; norms lie around 1; A_log and dt_bias
// where training starts them. Each tensor is made when it is read and not kept here.
class RandomParameters : public ParameterSource {
 public:
  // `present` says which optional tensors and spellings exist; empty: all but biases.
  explicit RandomParameters(DType dtype, std::uint64_t seed = 0,
                            std::function<bool(std::string_view name)> present = {});

  std::vector<std::string> names() const override { return {}; }
  bool find(std::string_view name, Parameter* into) const override;
  Parameter make(std::string_view name, std::span<const Index> shape) const override;

 private:
  DType dtype_;
  std::uint64_t seed_;
  std::function<bool(std::string_view name)> present_;
};

}  // namespace v0
}  // namespace ashlar
