// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/cuda/cuda_exec.hpp"
#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/ops/gated_scan.hpp"
#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {

// The state S [H, Dk, Dv] of a linear recurrence over one sequence in device memory, f32: a value, as
// RecurrentState. Kept transposed, [H][Dv][Dk].
class DeviceRecurrentState {
 public:
  DeviceRecurrentState() = default;
  DeviceRecurrentState(Index heads, Index key_dim, Index value_dim)
      : heads_(heads), key_dim_(key_dim), value_dim_(value_dim), data_({heads, value_dim, key_dim}) {}

  Index heads() const { return heads_; }
  Index key_dim() const { return key_dim_; }
  Index value_dim() const { return value_dim_; }
  DType dtype() const { return DType::f32; }
  Index position() const { return position_; }  // tokens seen
  Index bytes() const { return data_.size() * Index{sizeof(float)}; }

  // [H, Dk, Dv] in host memory; waits for the device.
  void import_from(View<const float, 3> s, Index position = 0);
  void export_to(View<float, 3> s) const;

  // Taking tokens back is for the CPU alone: refused but for 0 tokens.
  void keep_updates(Index tokens, Index substeps = 1);
  Index kept_tokens() const { return 0; }
  void rollback(Index tokens);

  float* data() { return data_.data(); }
  const float* data() const { return data_.data(); }
  void advance(Index tokens) { position_ += tokens; }

 private:
  Index heads_ = 0, key_dim_ = 0, value_dim_ = 0, position_ = 0;
  DeviceTensor<float, 3> data_;
};

using DeviceLinearRecurrence = LinearRecurrenceArgs<float, DeviceRecurrentState>;
using DeviceGatedScan = GatedScanArgs<float, DeviceRecurrentState>;

}  // namespace v0
}  // namespace ashlar
