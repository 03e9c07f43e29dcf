// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/recurrent_state.hpp"

#include <algorithm>
#include <cstring>

namespace ashlar {
inline namespace v0 {

RecurrentState::RecurrentState(Index heads, Index key_dim, Index value_dim, DType dtype)
    : heads_(heads), key_dim_(key_dim), value_dim_(value_dim), dtype_(dtype) {
  if (heads <= 0 || key_dim <= 0 || value_dim <= 0)
    refuse("RecurrentState", "heads, key_dim and value_dim are ", heads, ", ", key_dim, " and ", value_dim,
           ", expected positive numbers");
  if (dtype != DType::f32 && dtype != DType::bf16)
    refuse("RecurrentState", "dtype is ", name(dtype), ", expected f32 or bf16");
  data_ = Tensor<std::byte, 1>({heads * panels() * panel_bytes()});
}

void RecurrentState::import_from(View<const float, 3> s, Index position) {
  expect_shape("RecurrentState", "the imported state", s, {heads_, key_dim_, value_dim_});
  for (Index h = 0; h < heads_; ++h)
    for (Index j = 0; j < value_dim_; ++j)
      for (Index i = 0; i < key_dim_; ++i) {
        void* p = panel(h, j / kPanel);
        const Index at = i * kPanel + j % kPanel;
        if (dtype_ == DType::f32)
          static_cast<float*>(p)[at] = s(h, i, j);
        else
          static_cast<bf16*>(p)[at] = bf16(s(h, i, j));
      }
  position_ = position;
}

void RecurrentState::export_to(View<float, 3> s) const {
  expect_shape("RecurrentState", "the exported state", s, {heads_, key_dim_, value_dim_});
  for (Index h = 0; h < heads_; ++h)
    for (Index i = 0; i < key_dim_; ++i)
      for (Index j = 0; j < value_dim_; ++j) {
        const void* p = panel(h, j / kPanel);
        const Index at = i * kPanel + j % kPanel;
        s(h, i, j) = dtype_ == DType::f32 ? static_cast<const float*>(p)[at]
                                          : static_cast<float>(static_cast<const bf16*>(p)[at]);
      }
}

}  // namespace v0
}  // namespace ashlar
