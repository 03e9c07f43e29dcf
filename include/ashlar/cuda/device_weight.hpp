// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <span>

#include "ashlar/core/any_view.hpp"
#include "ashlar/cuda/cuda_exec.hpp"
#include "ashlar/ops/dense.hpp"

namespace ashlar {
inline namespace v0 {

// The weight of a dense layer in device memory, [N, K], f32 or bf16; `owner` keeps it alive.
class DeviceWeight {
 public:
  DeviceWeight() = default;
  // Refuses other element types and a strided innermost axis.
  explicit DeviceWeight(AnyView<2> values, std::shared_ptr<const void> owner = nullptr);

  const AnyView<2>& values() const { return values_; }
  Index rows() const { return values_.shape[0]; }
  Index columns() const { return values_.shape[1]; }
  explicit operator bool() const { return static_cast<bool>(values_); }

 private:
  AnyView<2> values_;
  std::shared_ptr<const void> owner_;
};

// As Dense (ops/dense.hpp), on the device. A bf16 weight in Precision::fast: prefill rounds x to bf16
// (cuBLASLt), decode of few rows reads x as it is.
struct DeviceDense {
  View<const float, 2> x;      // [M, K]
  const DeviceWeight& weight;  // [N, K]
  View<const float, 1> bias;   // [N]; empty: none
  View<float, 2> out;          // [M, N]
  Phase phase = Phase::prefill;
  bool last = false;          // see Dense
  View<float, 2> residual{};  // [M, N], += out; empty: none
};

void dense(const DeviceDense& args, CudaExec& exec);
// Several layers, such as those that read the same x, which is rounded once. No output overlaps another, nor
// any input.
void dense(std::span<const DeviceDense> layers, CudaExec& exec);

// As GatedDense (ops/dense.hpp).
struct DeviceGatedDense {
  View<const float, 2> x;
  const DeviceWeight &gate, &up;
  View<const float, 1> gate_bias, up_bias;
  View<float, 2> out;
  Activation activation = Activation::silu;
  Phase phase = Phase::prefill;
};

void gated_dense(const DeviceGatedDense& args, CudaExec& exec);

}  // namespace v0
}  // namespace ashlar
