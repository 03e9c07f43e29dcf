// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/cuda/device_recurrent_state.hpp"
#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/cuda/device_weight.hpp"
#include "ashlar/nn/backend.hpp"

namespace ashlar {
inline namespace v0 {

// What modules and models own on a device.
template <>
struct Backend<CudaExec> {
  using Matrix = DeviceWeight;
  using Vector = DeviceTensor<float, 1>;
  template <class T, int Rank>
  using Array = DeviceTensor<T, Rank>;
  struct Filters {};  // convolutions of images have no CUDA op
  using Dense = DeviceDense;
  using GatedDense = DeviceGatedDense;
  using RecurrentState = DeviceRecurrentState;
  using LinearRecurrence = LinearRecurrenceArgs<float, DeviceRecurrentState>;
  using HostScratch = CudaHostScratch;

  // Of a few rows in decode.
  class ResidualTarget {
   public:
    ResidualTarget(View<float, 2> y, View<float, 2> h, CudaExec& exec);
    ~ResidualTarget();
    ResidualTarget(const ResidualTarget&) = delete;
    ResidualTarget& operator=(const ResidualTarget&) = delete;
    bool reached() const { return reached_; }
    // Of the layer that writes y.
    View<float, 2> take(View<float, 2> y);

   private:
    View<float, 2> y_, h_;
    CudaExec* exec_;
    ResidualTarget* outer_;
    bool reached_ = false;
  };

  // A copy of a weight on the device, f32 or bf16 as the checkpoint has it; f16 and f64 become f32.
  static Matrix matrix(const Parameter& p, Index rows, Index columns, bool pack, CudaExec& exec);
  static Vector vector(Tensor<float, 1> values, CudaExec& exec);

  // As on the CPU, queued.
  static void copy(View<const float, 3> from, View<float, 3> to, CudaExec& exec);
  static void copy(View<const float, 3> from, View<bf16, 3> to, CudaExec& exec);
  static void copy(View<const bf16, 3> from, View<float, 3> to, CudaExec& exec);
  static void copy(View<const bf16, 3> from, View<bf16, 3> to, CudaExec& exec);
  static void fill(View<float, 3> to, float value, CudaExec& exec);
  // These wait for the device; they are for caches between steps.
  static void move(View<const float, 2> from, View<float, 2> to);
  static void move(View<const bf16, 2> from, View<bf16, 2> to);
  static void read(View<const float, 3> from, void* to);
  static void read(View<const bf16, 3> from, void* to);
  static void write(const void* from, View<float, 3> to);
  static void write(const void* from, View<bf16, 3> to);
};

}  // namespace v0
}  // namespace ashlar
