// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/rwkv7_gates.hpp"

#include <cmath>

#include "src/core/mixer_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/rwkv7_gates.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

void rwkv7_values_rows(const Rwkv7Values& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), dim = a.v.shape[1];
  for (Index t = begin; t < end; ++t)
    for (Index i = 0; i < dim; i += lanes) {
      const Index left = dim - i;
      const auto v = load_some(d, a.v.at(t, i), left);
      const auto towards = hn::Sub(load_some(d, a.first.at(t, i), left), v);
      const auto share = sigmoid(d, load_some(d, a.gate.at(t, i), left));
      store_some(hn::MulAdd(share, towards, v), d, a.out.at(t, i), left);
    }
}

// Rows [begin, end) of the flattened [T, H].
void rwkv7_keys_rows(const Rwkv7Keys& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), heads = a.k.shape[1], dim = a.k.shape[2];
  const auto one = hn::Set(d, 1.0f);
  for (Index row = begin; row < end; ++row) {
    const Index t = row / heads, h = row % heads;
    auto squares = hn::Zero(d);
    for (Index i = 0; i < dim; i += lanes) {
      const auto kk = hn::Mul(load_some(d, a.k.at(t, h, i), dim - i), load_some(d, a.k_k.at(h, i), dim - i));
      squares = hn::MulAdd(kk, kk, squares);
    }
    const auto scale = hn::Set(d, 1 / std::sqrt(sum(d, squares) + a.eps));
    for (Index i = 0; i < dim; i += lanes) {
      const Index left = dim - i;
      const auto k = load_some(d, a.k.at(t, h, i), left);
      const auto kk = hn::Mul(hn::Mul(k, load_some(d, a.k_k.at(h, i), left)), scale);
      const auto eta = sigmoid(d, load_some(d, a.gate.at(t, h, i), left));
      const auto factor = hn::MulAdd(hn::Sub(eta, one), load_some(d, a.k_a.at(h, i), left), one);
      store_some(hn::Neg(kk), d, a.a.at(t, h, i), left);
      store_some(hn::Mul(kk, eta), d, a.b.at(t, h, i), left);
      store_some(hn::Mul(k, factor), d, a.key.at(t, h, i), left);
    }
  }
}

void rwkv7_output_rows(const Rwkv7Output& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), heads = a.x.shape[1];
  const Index dim = a.r.shape[2], dv = a.x.shape[2];
  for (Index row = begin; row < end; ++row) {
    const Index t = row / heads, h = row % heads;
    auto dot = hn::Zero(d);
    for (Index i = 0; i < dim; i += lanes) {
      const Index left = dim - i;
      const auto rk = hn::Mul(load_some(d, a.r.at(t, h, i), left), load_some(d, a.k.at(t, h, i), left));
      dot = hn::MulAdd(rk, load_some(d, a.r_k.at(h, i), left), dot);
    }
    const auto own = hn::Set(d, sum(d, dot));
    for (Index i = 0; i < dv; i += lanes) {
      const Index left = dv - i;
      const auto y =
          hn::MulAdd(own, load_some(d, a.v.at(t, h, i), left), load_some(d, a.x.at(t, h, i), left));
      store_some(hn::Mul(y, load_some(d, a.gate.at(t, h, i), left)), d, a.out.at(t, h, i), left);
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
HWY_EXPORT(rwkv7_values_rows);
HWY_EXPORT(rwkv7_keys_rows);
HWY_EXPORT(rwkv7_output_rows);
}  // namespace kernels

void rwkv7_values(const Rwkv7Values& a, CpuExec& exec) {
  check(a);
  trace(exec, "rwkv7_values", "rows", to_string(a.v.shape));
  parallel_rows(exec, a.v.shape[0], a.v.shape[1], [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, rwkv7_values_rows)(a, begin, end);
  });
}

void rwkv7_keys(const Rwkv7Keys& a, CpuExec& exec) {
  const auto [tokens, heads, dim] = a.k.shape;
  check(a);
  trace(exec, "rwkv7_keys", "rows", to_string(a.k.shape));
  parallel_rows(exec, tokens * heads, dim, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, rwkv7_keys_rows)(a, begin, end);
  });
}

void rwkv7_output(const Rwkv7Output& a, CpuExec& exec) {
  const auto [tokens, heads, dv] = a.x.shape;
  check(a);
  trace(exec, "rwkv7_output", "rows", to_string(a.x.shape));
  parallel_rows(exec, tokens * heads, dv, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, rwkv7_output_rows)(a, begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
