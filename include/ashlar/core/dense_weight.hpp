// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "ashlar/core/any_view.hpp"
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// The weight of a dense layer, [N, K] as checkpoints store it (out_features, in_features), f32 or bf16, where
// the checkpoint has it: `owner` keeps that memory alive. bf16 is widened inside the kernels and never held a
// second time.
class DenseWeight {
 public:
  DenseWeight() = default;
  // Refuses other element types and a strided innermost axis.
  explicit DenseWeight(AnyView<2> values, std::shared_ptr<const void> owner = nullptr);

  // f32 only: keeps a second copy in the order that prefill reads, which saves prefill the reordering (a few
  // percent of its time at 512 rows, more at fewer).
  void pack(CpuExec& exec);

  const AnyView<2>& values() const { return values_; }
  const Tensor<float, 1>& packed() const { return packed_; }
  Index rows() const { return values_.shape[0]; }
  Index columns() const { return values_.shape[1]; }
  explicit operator bool() const { return static_cast<bool>(values_); }

 private:
  AnyView<2> values_;
  std::shared_ptr<const void> owner_;
  Tensor<float, 1> packed_;
};

}  // namespace v0
}  // namespace ashlar
