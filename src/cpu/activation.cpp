// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/activation.hpp"

#include <algorithm>

#include "src/core/op_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/activation.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/activation-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// One row; up may be null.
template <Activation F>
void activate_row(const float* x, const float* up, float scale, float negative_slope, float* out, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto s = hn::Set(d, scale);
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    auto y = hn::Mul(s, activation<F>(d, hn::LoadU(d, x + i), negative_slope));
    if (up) y = hn::Mul(y, hn::LoadU(d, up + i));
    hn::StoreU(y, d, out + i);
  }
  if (i == n) return;
  auto y = hn::Mul(s, activation<F>(d, load_n(d, x + i, n - i), negative_slope));
  if (up) y = hn::Mul(y, load_n(d, up + i, n - i));
  store_n(y, d, out + i, n - i);
}

// min(x, limit), and NaN for NaN.
HWY_INLINE FloatVec at_most(FloatVec x, FloatVec limit) { return hn::IfThenElse(hn::Lt(limit, x), limit, x); }

// A row with all that there is.
void activate_general_row(const Activate& a, const float* x, const float* up, float* out) {
  const FloatTag d;
  const Index n = a.x.shape[1], lanes = static_cast<Index>(hn::Lanes(d));
  const auto scale = hn::Set(d, a.scale), slope = hn::Set(d, a.slope), limit = hn::Set(d, a.limit),
             offset = hn::Set(d, a.up_offset);
  for (Index i = 0; i < n; i += lanes) {
    const Index rest = std::min(lanes, n - i);
    auto y = hn::Mul(slope, at_most(load_some(d, x + i, rest), limit));
    y = hn::Mul(scale, activation(a.activation, d, y, a.negative_slope));
    if (up) {
      const auto u = hn::Neg(at_most(hn::Neg(at_most(load_some(d, up + i, rest), limit)), limit));
      y = hn::Mul(y, hn::Add(u, offset));
    }
    store_some(y, d, out + i, rest);
  }
}

void activate_rows(const Activate& a, Index begin, Index end) {
  if (a.slope != 1 || a.limit != std::numeric_limits<float>::infinity() || a.up_offset != 0) {
    for (Index t = begin; t < end; ++t)
      activate_general_row(a, a.x.at(t), a.up ? a.up.at(t) : nullptr, a.out.at(t));
    return;
  }
  with_activation(a.activation, [&](auto f) HWY_ATTR {
    for (Index t = begin; t < end; ++t)
      activate_row<decltype(f)::value>(a.x.at(t), a.up ? a.up.at(t) : nullptr, a.scale, a.negative_slope,
                                       a.out.at(t), a.x.shape[1]);
  });
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
HWY_EXPORT(activate_rows);
}  // namespace kernels

void activate(const Activate& a, CpuExec& exec) {
  check(a);
  trace(exec, "activate", "rows", to_string(a.x.shape));
  parallel_rows(exec, a.x.shape[0], a.x.shape[1], [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, activate_rows)(a, begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
