// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
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

// Prefill works on tiles of rows, decode reads each weight once and multiplies it with a few rows. A row's
// result does not depend on the other rows of the call within a phase; the phases may differ from each other
// in the last bits.
enum class Phase : std::uint8_t { prefill, decode };

// out = x W^T + bias, accumulated in f32: 2 M N K flops. Refused: shapes that differ. `out` must not overlap
// `x`. Backward needs x and W.
struct Dense {
  View<const float, 2> x;     // [M, K]
  const DenseWeight& weight;  // [N, K]
  View<const float, 1> bias;  // [N]; empty: none
  View<float, 2> out;         // [M, N]
  Phase phase = Phase::prefill;
};

void dense(const Dense& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
