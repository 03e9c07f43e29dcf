// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/scale_heads.hpp"

#include "src/core/mixer_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/scale_heads.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Rows [begin, end) of the flattened [T, H].
void scale_heads_rows(const ScaleHeads& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto [tokens, heads, dim] = a.out.shape;
  const Index group = heads / a.x.shape[1];
  const bool per_channel = a.scale.shape[2] != 1;
  for (Index row = begin; row < end; ++row) {
    const Index t = row / heads, h = row % heads;
    const float *x = a.x.at(t, h / group), *scale = a.scale.at(t, h), *add = a.add ? a.add.at(t, h) : nullptr;
    float* out = a.out.at(t, h);
    const auto one = hn::Set(d, *scale);
    for (Index i = 0; i < dim; i += lanes) {
      const Index left = dim - i;
      const auto s = per_channel ? load_some(d, scale + i, left) : one;
      const auto v = load_some(d, x + i, left);
      store_some(add ? hn::MulAdd(s, v, load_some(d, add + i, left)) : hn::Mul(s, v), d, out + i, left);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(scale_heads_rows);
}  // namespace kernels

void scale_heads(const ScaleHeads& a, CpuExec& exec) {
  const auto [tokens, heads, dim] = a.out.shape;
  check(a);
  trace(exec, "scale_heads", "rows", to_string(a.out.shape));
  if (dim == 0) return;
  parallel_rows(exec, tokens * heads, dim, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, scale_heads_rows)(a, begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
