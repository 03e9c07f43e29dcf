// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "ashlar/ops/softmax_attention.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/merge_attention.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// out = x a + y b; a part whose factor is 0 is not read.
void mix_rows(const float* a, float x, const float* b, float y, Index n, float* out) {
  const FloatTag d;
  const auto fa = hn::Set(d, x), fb = hn::Set(d, y);
  for (Index i = 0; i < n; i += static_cast<Index>(hn::Lanes(d))) {
    auto sum = hn::Zero(d);
    if (x != 0) sum = hn::Mul(fa, load_some(d, a + i, n - i));
    if (y != 0) sum = hn::MulAdd(fb, load_some(d, b + i, n - i), sum);
    store_some(sum, d, out + i, n - i);
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
HWY_EXPORT(mix_rows);
}  // namespace kernels

void merge_attention(const MergeAttention& m, CpuExec& exec) {
  constexpr std::string_view kOp = "merge_attention";
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const auto [tokens, heads, dim] = m.out.shape;
  expect_shape(kOp, "out", m.out, m.out.shape);
  expect_shape(kOp, "a", m.a, m.out.shape);
  expect_shape(kOp, "b", m.b, m.out.shape);
  expect_shape(kOp, "lse_a", m.lse_a, {tokens, heads});
  expect_shape(kOp, "lse_b", m.lse_b, {tokens, heads});
  if (m.lse) expect_shape(kOp, "lse", m.lse, {tokens, heads});
  trace(exec, kOp, "rows", "out", to_string(m.out.shape));
  parallel_rows(exec, tokens, heads * dim, [&, heads = heads, dim = dim](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index h = 0; h < heads; ++h) {
        const float x = m.lse_a(t, h), y = m.lse_b(t, h), most = std::max(x, y);
        const float lse =
            most == kLowest ? kLowest : most + std::log(std::exp(x - most) + std::exp(y - most));
        const float from_a = x == kLowest ? 0 : std::exp(x - lse),
                    from_b = y == kLowest ? 0 : std::exp(y - lse);
        ASHLAR_DISPATCH(exec, mix_rows)(m.a.at(t, h), from_a, m.b.at(t, h), from_b, dim, m.out.at(t, h));
        if (m.lse) m.lse(t, h) = lse;
      }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
