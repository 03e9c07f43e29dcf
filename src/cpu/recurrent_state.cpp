// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {

RecurrentState::RecurrentState(Index heads, Index key_dim, Index value_dim)
    : heads_(heads), key_dim_(key_dim), value_dim_(value_dim) {
  if (heads <= 0 || key_dim <= 0 || value_dim <= 0)
    refuse("RecurrentState", "heads, key_dim and value_dim are ", heads, ", ", key_dim, " and ", value_dim,
           ", expected positive numbers");
  data_ = Tensor<float, 1>({heads * panels() * key_dim * kPanel});
}

void RecurrentState::import_from(View<const float, 3> s) {
  expect_shape("RecurrentState", "the imported state", s, {heads_, key_dim_, value_dim_});
  for (Index h = 0; h < heads_; ++h)
    for (Index p = 0; p < panels(); ++p)
      for (Index i = 0; i < key_dim_; ++i)
        std::memcpy(panel(h, p) + i * kPanel, s.at(h, i, p * kPanel),
                    sizeof(float) * static_cast<std::size_t>(std::min(kPanel, value_dim_ - p * kPanel)));
}

void RecurrentState::export_to(View<float, 3> s) const {
  expect_shape("RecurrentState", "the exported state", s, {heads_, key_dim_, value_dim_});
  for (Index h = 0; h < heads_; ++h)
    for (Index p = 0; p < panels(); ++p)
      for (Index i = 0; i < key_dim_; ++i)
        std::memcpy(s.at(h, i, p * kPanel), panel(h, p) + i * kPanel,
                    sizeof(float) * static_cast<std::size_t>(std::min(kPanel, value_dim_ - p * kPanel)));
}

}  // namespace v0
}  // namespace ashlar
