// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/device_recurrent_state.hpp"

namespace ashlar {
inline namespace v0 {

void DeviceRecurrentState::import_from(View<const float, 3> s, Index position) {
  expect_shape("DeviceRecurrentState", "s", s, {heads_, key_dim_, value_dim_});
  Tensor<float, 3> transposed({heads_, value_dim_, key_dim_});
  for (Index h = 0; h < heads_; ++h)
    for (Index i = 0; i < key_dim_; ++i)
      for (Index j = 0; j < value_dim_; ++j) transposed.view()(h, j, i) = s(h, i, j);
  detail::device_copy(data_.data(), transposed.data(), sizeof(float) * static_cast<std::size_t>(data_.size()),
                      detail::CopyKind::to_device);
  position_ = position;
}

void DeviceRecurrentState::export_to(View<float, 3> s) const {
  expect_shape("DeviceRecurrentState", "s", s, {heads_, key_dim_, value_dim_});
  const Tensor<float, 3> transposed = data_.to_host();
  for (Index h = 0; h < heads_; ++h)
    for (Index i = 0; i < key_dim_; ++i)
      for (Index j = 0; j < value_dim_; ++j) s(h, i, j) = transposed.view()(h, j, i);
}

void DeviceRecurrentState::keep_updates(Index tokens, Index) {
  if (tokens != 0)
    refuse("DeviceRecurrentState", tokens,
           " tokens were to be kept, expected 0: on a device none can be taken back");
}

void DeviceRecurrentState::rollback(Index tokens) {
  if (tokens != 0)
    refuse("DeviceRecurrentState", tokens, " tokens were to be taken back, expected 0 on a device");
}

}  // namespace v0
}  // namespace ashlar
