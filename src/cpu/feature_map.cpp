// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/feature_map.hpp"

#include "src/core/mixer_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/feature_map.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// f(i, n) for each vector of n elements up to `count`.
template <class F>
HWY_INLINE void each_vector(Index count, const F& f) {
  const Index lanes = static_cast<Index>(hn::Lanes(FloatTag()));
  for (Index i = 0; i < count; i += lanes) f(i, count - i < lanes ? count - i : lanes);
}
HWY_INLINE FloatVec load_up_to(FloatTag d, const float* p, Index n) {
  return n == static_cast<Index>(hn::Lanes(d)) ? hn::LoadU(d, p) : load_n(d, p, n);
}
HWY_INLINE void store_up_to(FloatVec v, FloatTag d, float* p, Index n) {
  if (n == static_cast<Index>(hn::Lanes(d)))
    hn::StoreU(v, d, p);
  else
    store_n(v, d, p, n);
}

// Rows [begin, end) of the flattened [T, H]; `work` is 2 D + nu floats: the last nu of r, then r.
void dpfp_rows(const Dpfp& a, Index begin, Index end, float* work) {
  const FloatTag d;
  const Index heads = a.x.shape[1], dim = a.x.shape[2], wide = 2 * dim;
  float* r = work + a.nu;
  for (Index row = begin; row < end; ++row) {
    const float* x = a.x.at(row / heads, row % heads);
    float* out = a.out.at(row / heads, row % heads);
    each_vector(dim, [&](Index i, Index n) HWY_ATTR {
      const auto positive = hn::Max(load_up_to(d, x + i, n), hn::Zero(d));
      store_up_to(positive, d, r + i, n);
      store_up_to(hn::Neg(positive), d, r + dim + i, n);
    });
    for (Index j = 1; j <= a.nu; ++j) work[a.nu - j] = r[((wide - j) % wide + wide) % wide];
    for (Index j = 1; j <= a.nu; ++j)
      each_vector(wide, [&](Index i, Index n) HWY_ATTR {
        store_up_to(hn::Mul(load_up_to(d, r + i, n), load_up_to(d, r + i - j, n)), d,
                    out + (j - 1) * wide + i, n);
      });
  }
}

void hedgehog_rows(const Hedgehog& a, Index begin, Index end) {
  const FloatTag d;
  const Index heads = a.x.shape[1], dim = a.x.shape[2];
  const auto scale = hn::Set(d, a.scale);
  for (Index row = begin; row < end; ++row) {
    const float* x = a.x.at(row / heads, row % heads);
    float* out = a.out.at(row / heads, row % heads);
    auto largest = hn::Zero(d);
    each_vector(dim, [&](Index i, Index n) HWY_ATTR {
      largest = hn::Max(largest, hn::Abs(hn::Mul(scale, load_up_to(d, x + i, n))));
    });
    const auto most = hn::Set(d, max(d, largest));
    float total = 0;
    for (const float sign : {1.0f, -1.0f})
      each_vector(dim, [&](Index i, Index n) HWY_ATTR {
        const auto y = hn::Mul(hn::Mul(scale, hn::Set(d, sign)), load_up_to(d, x + i, n));
        const auto e = exp_negative(d, hn::Sub(y, most));
        float* to = out + (sign > 0 ? 0 : dim) + i;
        store_up_to(hn::IfThenElse(hn::IsNaN(y), y, e), d, to, n);
        for (Index k = 0; k < n; ++k) total += to[k];
      });
    const auto inverse = hn::Set(d, 1 / total);
    each_vector(2 * dim, [&](Index i, Index n) HWY_ATTR {
      store_up_to(hn::Mul(inverse, load_up_to(d, out + i, n)), d, out + i, n);
    });
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
HWY_EXPORT(dpfp_rows);
HWY_EXPORT(hedgehog_rows);
}  // namespace kernels

void dpfp(const Dpfp& a, CpuExec& exec) {
  const auto [tokens, heads, dim] = a.x.shape;
  check(a);
  trace(exec, "dpfp", "rows", to_string(a.x.shape));
  if (a.out.size() == 0) return;
  CpuScratch scratch(exec);
  const auto work = scratch.floats(exec.threads(), 2 * dim + a.nu);
  parallel_rows(exec, tokens * heads, 2 * dim * a.nu, [&](Index begin, Index end, int worker) {
    ASHLAR_DISPATCH(exec, dpfp_rows)(a, begin, end, work.at(worker));
  });
}

void hedgehog(const Hedgehog& a, CpuExec& exec) {
  const auto [tokens, heads, dim] = a.x.shape;
  check(a);
  trace(exec, "hedgehog", "rows", to_string(a.x.shape));
  if (a.out.size() == 0) return;
  parallel_rows(exec, tokens * heads, 2 * dim, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, hedgehog_rows)(a, begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
