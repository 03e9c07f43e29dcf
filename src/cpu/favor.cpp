// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/favor.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/favor.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

HWY_INLINE float row_max(const float* x, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  auto most = hn::Set(d, -std::numeric_limits<float>::infinity());
  Index i = 0;
  for (; i + lanes <= n; i += lanes) most = hn::Max(most, hn::LoadU(d, x + i));
  float all = max(d, most);
  for (; i < n; ++i) all = HWY_MAX(all, x[i]);
  return all;
}

// Rows [begin, end) of the flattened [T, H]: the largest product of each.
void favor_row_max(const FavorFeatures& a, Index begin, Index end, float* most) {
  const Index heads = a.projected.shape[1];
  for (Index row = begin; row < end; ++row)
    most[row] = row_max(a.projected.at(row / heads, row % heads), a.projected.shape[2]);
}

// `most`: what is subtracted from each row's products, before the scale; null: nothing.
void favor_rows(const FavorFeatures& a, Index begin, Index end, const float* most) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), heads = a.projected.shape[1],
              features = a.projected.shape[2];
  const auto scale = hn::Set(d, a.scale), eps = hn::Set(d, a.eps);
  const auto root = hn::Set(d, 1 / std::sqrt(static_cast<float>(features)));
  for (Index row = begin; row < end; ++row) {
    const Index t = row / heads, h = row % heads;
    const float* from = a.projected.at(t, h);
    float* out = a.out.at(t, h);
    if (a.kind == FavorFeatures::relu) {
      for (Index i = 0; i < features; i += lanes) {
        const auto y = hn::Mul(scale, load_some(d, from + i, features - i));
        store_some(hn::Add(hn::IfThenZeroElse(hn::Lt(y, hn::Zero(d)), y), eps), d, out + i, features - i);
      }
      continue;
    }
    const float* x = a.x.at(t, h);
    auto squares = hn::Zero(d);
    for (Index i = 0; i < a.x.shape[2]; i += lanes) {
      const auto y = load_some(d, x + i, a.x.shape[2] - i);
      squares = hn::MulAdd(y, y, squares);
    }
    const auto half = hn::Set(d, 0.5f * a.scale * a.scale * sum(d, squares));
    const auto c = hn::Set(d, most != nullptr ? most[row] : 0);
    for (Index i = 0; i < features; i += lanes) {
      const auto y = hn::Sub(load_some(d, from + i, features - i), c);
      const auto e = exp(d, hn::MulSub(scale, y, half));
      store_some(hn::Mul(root, hn::Add(e, eps)), d, out + i, features - i);
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
HWY_EXPORT(favor_row_max);
HWY_EXPORT(favor_rows);
}  // namespace kernels

void favor_features(const FavorFeatures& a, CpuExec& exec) {
  constexpr std::string_view kOp = "favor_features";
  const auto [tokens, heads, features] = a.projected.shape;
  const bool softmax = a.kind == FavorFeatures::softmax;
  expect_shape(kOp, "projected", a.projected, a.projected.shape);
  expect_shape(kOp, "out", a.out, a.projected.shape);
  if (softmax && !a.x) refuse(kOp, "softmax features were asked for without x");
  if (a.x) expect_shape(kOp, "x", a.x, {tokens, heads, a.x.shape[2]});
  a.offsets.check(kOp, tokens);
  trace(exec, kOp, softmax ? "softmax" : "relu", to_string(a.out.shape));
  if (a.out.size() == 0) return;

  const Index rows = tokens * heads;
  const bool stable = softmax && a.stabilizer != FavorStabilizer::none;
  CpuScratch scratch(exec);
  float* most = scratch.floats(stable ? rows : 0).data;
  if (!stable) most = nullptr;
  if (stable)
    parallel_rows(exec, rows, features, [&](Index begin, Index end) {
      ASHLAR_DISPATCH(exec, favor_row_max)(a, begin, end, most);
    });
  if (stable && a.stabilizer == FavorStabilizer::sequence)
    for (Index n = 0; n < a.offsets.count(); ++n)
      for (Index h = 0; h < heads; ++h) {
        const Index begin = a.offsets.begin(n), end = a.offsets.end(n, tokens);
        float all = -std::numeric_limits<float>::infinity();
        for (Index t = begin; t < end; ++t) all = std::max(all, most[t * heads + h]);
        for (Index t = begin; t < end; ++t) most[t * heads + h] = all;
      }
  parallel_rows(exec, rows, 4 * features, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, favor_rows)(a, begin, end, most);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
