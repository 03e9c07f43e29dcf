// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/norm.hpp"

#include <cmath>

#include "src/core/op_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/norm.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/activation-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

float sum_of_squares(const float* x, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0;
  Index i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + i + lanes);
    s0 = hn::MulAdd(a, a, s0), s1 = hn::MulAdd(b, b, s1);
  }
  for (; i < n; i += lanes) {
    const auto a = i + lanes <= n ? hn::LoadU(d, x + i) : load_n(d, x + i, n - i);
    s0 = hn::MulAdd(a, a, s0);
  }
  return sum(d, hn::Add(s0, s1));
}

// out = (weight_offset + weight) * x * scale * activation(gate) for one row; weight and gate may be null.
void scale_row(const float* x, float scale, const float* weight, float weight_offset, const float* gate,
               Activation f, float* out, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto s = hn::Set(d, scale), offset = hn::Set(d, weight_offset);
  for (Index i = 0; i < n; i += lanes) {
    const Index left = n - i;
    const bool whole = left >= lanes;
    auto y = hn::Mul(s, whole ? hn::LoadU(d, x + i) : load_n(d, x + i, left));
    if (weight)
      y = hn::Mul(y, hn::Add(offset, whole ? hn::LoadU(d, weight + i) : load_n(d, weight + i, left)));
    if (gate) y = hn::Mul(y, activation(f, d, whole ? hn::LoadU(d, gate + i) : load_n(d, gate + i, left)));
    if (whole)
      hn::StoreU(y, d, out + i);
    else
      store_n(y, d, out + i, left);
  }
}

// Rows [begin, end) of the flattened [T, H].
void rms_norm_rows(const RmsNorm& a, Index begin, Index end) {
  const auto [tokens, heads, dim] = a.x.shape;
  const bool per_head = a.weight && a.weight.shape[0] != dim;
  const float unweighted = a.weight ? a.weight_offset : 0;
  for (Index row = begin; row < end; ++row) {
    const Index t = row / heads, h = row % heads;
    const float* x = a.x.at(t, h);
    const float scale = 1 / std::sqrt(sum_of_squares(x, dim) / static_cast<float>(dim) + a.eps);
    const float whole = a.weight ? scale : scale * (1 + a.weight_offset);
    scale_row(x, whole, a.weight ? a.weight.data + (per_head ? h * dim : 0) : nullptr, unweighted,
              a.gate ? a.gate.at(t, h) : nullptr, a.gate_activation, a.out.at(t, h), dim);
  }
}

float mean_of(const float* x, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  auto s = hn::Zero(d);
  for (Index i = 0; i < n; i += lanes) s = hn::Add(s, load_some(d, x + i, n - i));
  return sum(d, s) / static_cast<float>(n);
}

// The sum of (x - mean)^2.
float sum_of_deviations(const float* x, float mean, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto m = hn::Set(d, mean);
  auto s = hn::Zero(d);
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto a = hn::Sub(hn::LoadU(d, x + i), m);
    s = hn::MulAdd(a, a, s);
  }
  float rest = 0;
  for (; i < n; ++i) rest += (x[i] - mean) * (x[i] - mean);
  return sum(d, s) + rest;
}

void layer_norm_rows(const LayerNorm& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto [tokens, heads, dim] = a.x.shape;
  const auto of_head = [dim = dim](const View<const float, 1>& v, Index h) {
    return v ? v.data + (v.shape[0] != dim ? h * dim : 0) : nullptr;
  };
  for (Index row = begin; row < end; ++row) {
    const Index t = row / heads, h = row % heads;
    const float *x = a.x.at(t, h), *gate = a.gate ? a.gate.at(t, h) : nullptr;
    const float *weight = of_head(a.weight, h), *bias = of_head(a.bias, h);
    float* out = a.out.at(t, h);
    const float mean = mean_of(x, dim);
    const float scale = 1 / std::sqrt(sum_of_deviations(x, mean, dim) / static_cast<float>(dim) + a.eps);
    const auto m = hn::Set(d, mean), s = hn::Set(d, scale);
    for (Index i = 0; i < dim; i += lanes) {
      const Index left = dim - i;
      auto y = hn::Mul(hn::Sub(load_some(d, x + i, left), m), s);
      if (weight) y = hn::Mul(y, load_some(d, weight + i, left));
      if (bias) y = hn::Add(y, load_some(d, bias + i, left));
      if (gate) y = hn::Mul(y, activation(a.gate_activation, d, load_some(d, gate + i, left)));
      store_some(y, d, out + i, left);
    }
  }
}

void l2_norm_rows(const L2Norm& a, Index begin, Index end) {
  const auto [tokens, heads, dim] = a.x.shape;
  for (Index row = begin; row < end; ++row) {
    const Index t = row / heads, h = row % heads;
    const float* x = a.x.at(t, h);
    scale_row(x, a.scale / std::sqrt(sum_of_squares(x, dim) + a.eps), nullptr, 0, nullptr,
              Activation::identity, a.out.at(t, h), dim);
  }
}

void sum_norm_rows(const SumNorm& a, Index begin, Index end) {
  const FloatTag d;
  const auto [tokens, heads, dim] = a.x.shape;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  for (Index row = begin; row < end; ++row) {
    const Index t = row / heads, h = row % heads;
    const float* x = a.x.at(t, h);
    auto total = hn::Zero(d);
    for (Index i = 0; i < dim; i += lanes)
      total = hn::Add(total, i + lanes <= dim ? hn::LoadU(d, x + i) : load_n(d, x + i, dim - i));
    scale_row(x, 1 / (sum(d, total) + a.eps), nullptr, 0, nullptr, Activation::identity, a.out.at(t, h), dim);
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
HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(layer_norm_rows);
HWY_EXPORT(l2_norm_rows);
HWY_EXPORT(sum_norm_rows);
}  // namespace kernels

void rms_norm(const RmsNorm& a, CpuExec& exec) {
  check(a);
  const auto [tokens, heads, dim] = a.x.shape;
  trace(exec, "rms_norm", "rows", to_string(a.x.shape));
  parallel_rows(exec, tokens * heads, dim, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, rms_norm_rows)(a, begin, end);
  });
}

void layer_norm(const LayerNorm& a, CpuExec& exec) {
  check(a);
  const auto [tokens, heads, dim] = a.x.shape;
  trace(exec, "layer_norm", "rows", to_string(a.x.shape));
  parallel_rows(exec, tokens * heads, dim, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, layer_norm_rows)(a, begin, end);
  });
}

void l2_norm(const L2Norm& a, CpuExec& exec) {
  check(a);
  const auto [tokens, heads, dim] = a.x.shape;
  trace(exec, "l2_norm", "rows", to_string(a.x.shape));
  parallel_rows(exec, tokens * heads, dim, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, l2_norm_rows)(a, begin, end);
  });
}

void sum_norm(const SumNorm& a, CpuExec& exec) {
  check(a);
  const auto [tokens, heads, dim] = a.x.shape;
  trace(exec, "sum_norm", "rows", to_string(a.x.shape));
  parallel_rows(exec, tokens * heads, dim, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, sum_norm_rows)(a, begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
