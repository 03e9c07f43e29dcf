// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/decay_gate.hpp"

#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/decay_gate.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/activation-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Tokens [begin, end), a vector of heads at a time: exp(a_log) is taken once for all of them.
void decay_gate_rows(const DecayGate& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), heads = a.x.shape[1];
  for (Index h = 0; h < heads; h += lanes) {
    const Index left = heads - h;
    const bool whole = left >= lanes;
    const auto load_some = [&](const float* p)
                               HWY_ATTR { return whole ? hn::LoadU(d, p) : load_n(d, p, left); };
    const auto rate = hn::Neg(exp(d, load_some(a.a_log.at(h))));
    const auto bias = a.dt_bias ? load_some(a.dt_bias.at(h)) : hn::Zero(d);
    for (Index t = begin; t < end; ++t) {
      const auto g = hn::Mul(rate, softplus(d, hn::Add(load_some(a.x.at(t, h)), bias)));
      if (whole)
        hn::StoreU(g, d, a.out.at(t, h));
      else
        store_n(g, d, a.out.at(t, h), left);
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
HWY_EXPORT(decay_gate_rows);
}  // namespace kernels

void decay_gate(const DecayGate& a, CpuExec& exec) {
  const Index heads = a.x.shape[1];
  expect_shape("decay_gate", "x", a.x, a.x.shape);
  expect_shape("decay_gate", "a_log", a.a_log, {heads});
  if (a.dt_bias) expect_shape("decay_gate", "dt_bias", a.dt_bias, {heads});
  expect_shape("decay_gate", "out", a.out, a.x.shape);
  trace(exec, "decay_gate", "rows", to_string(a.x.shape));
  parallel_rows(exec, a.x.shape[0], heads, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, decay_gate_rows)(a, begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
