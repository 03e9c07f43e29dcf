// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/decay_gate.hpp"

#include <cmath>

#include "ashlar/ops/activation.hpp"
#include "src/core/op_checks.hpp"
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

// What a vector of channels has of its own, the same for all tokens.
struct DecayChannels {
  FloatVec rate, bias, lower_bound, log_lower_bound;
};

DecayChannels decay_channels(const DecayGate& a, Index c, Index n) {
  const FloatTag d;
  HWY_ALIGN float log_rate[HWY_MAX_BYTES / sizeof(float)] = {}, bound[HWY_MAX_BYTES / sizeof(float)] = {},
                                           log_bound[HWY_MAX_BYTES / sizeof(float)] = {};
  if (a.a_log) {
    const Index a_head = a.x.shape[1] / a.a_log.shape[0];
    for (Index i = 0; i < n; ++i) log_rate[i] = a.a_log((c + i) / a_head);
  }
  if (a.lower_bound)
    for (Index i = 0; i < n; ++i) bound[i] = a.lower_bound(c + i), log_bound[i] = std::log(bound[i]);
  return {exp(d, hn::Load(d, log_rate)), a.dt_bias ? load_n(d, a.dt_bias.at(c), n) : hn::Zero(d),
          hn::Load(d, bound), hn::Load(d, log_bound)};
}

// ln(lb + (1 - lb) sigmoid(x)). With u = e^-|x|: ln(1 - rest) for rest = (1 - lb) sigmoid(-x) up to 1/2;
// beyond it x < 0, and the value is ln(lb + u) - ln(1 + u), the first from the larger of the two.
HWY_INLINE FloatVec lower_bounded(FloatTag d, FloatVec x, const DecayChannels& c) {
  const auto one = hn::Set(d, 1.0f), half = hn::Set(d, 0.5f);
  const auto u = exp_negative(d, hn::Neg(hn::Abs(x)));
  const auto numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), one, u);
  const auto rest = hn::Div(hn::Mul(hn::Sub(one, c.lower_bound), numerator), hn::Add(one, u));
  const auto near = log1p_small(d, hn::Neg(hn::Min(rest, half)));
  const auto larger = hn::Max(c.lower_bound, u), smaller = hn::Min(c.lower_bound, u);
  const auto ratio = hn::IfThenElse(hn::Gt(larger, hn::Zero(d)), hn::Div(smaller, larger), hn::Zero(d));
  const auto log_larger = hn::IfThenElse(hn::Gt(c.lower_bound, u), c.log_lower_bound, x);
  const auto far = hn::Add(log_larger, hn::Sub(log1p_small(d, ratio), log1p_small(d, u)));
  const auto y = hn::IfThenElse(hn::Gt(rest, half), far, near);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

template <DecayFormula F>
void decay_gate_as(const DecayGate& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), channels = a.x.shape[1];
  const auto bound = hn::Set(d, a.bound), temperature = hn::Set(d, a.temperature),
             floor = hn::Set(d, a.floor);
  const auto min_step = hn::Set(d, a.min_step), max_step = hn::Set(d, a.max_step);
  for (Index c = 0; c < channels; c += lanes) {
    const Index left = std::min(lanes, channels - c);
    const bool whole = left == lanes;
    const DecayChannels own = decay_channels(a, c, left);
    const auto store = [&](FloatVec v, float* p) HWY_ATTR {
      if (whole)
        hn::StoreU(v, d, p);
      else
        store_n(v, d, p, left);
    };
    for (Index t = begin; t < end; ++t) {
      const float* from = a.x.at(t, c);
      const auto x = hn::Add(whole ? hn::LoadU(d, from) : load_n(d, from, left), own.bias);
      auto g = x;
      if constexpr (F == DecayFormula::softplus) {
        const auto step = softplus(d, x);  // a NaN passes through the comparisons
        const auto low = hn::IfThenElse(hn::Lt(step, min_step), min_step, step);
        const auto clamped = hn::IfThenElse(hn::Gt(low, max_step), max_step, low);
        if (a.step) store(clamped, a.step.at(t, c));
        g = hn::Neg(hn::Mul(own.rate, clamped));
      } else if constexpr (F == DecayFormula::bounded) {
        g = hn::Mul(bound, sigmoid(d, hn::Mul(own.rate, x)));
      } else if constexpr (F == DecayFormula::log_sigmoid) {
        const auto y = hn::Neg(hn::Div(softplus(d, hn::Neg(x)), temperature));
        g = hn::IfThenElse(hn::Lt(y, floor), floor, y);
      } else if constexpr (F == DecayFormula::exponential) {
        g = hn::Neg(exp(d, x));
      } else {
        g = lower_bounded(d, x, own);
      }
      store(g, a.out.at(t, c));
      if (a.complement)
        store(hn::IfThenElse(hn::IsNaN(g), g, hn::Neg(expm1_negative(d, g))), a.complement.at(t, c));
    }
  }
}

// Tokens [begin, end), a vector of channels at a time: what is the channels' own is taken once for all of
// them.
void decay_gate_rows(const DecayGate& a, Index begin, Index end) {
  switch (a.formula) {
    case DecayFormula::softplus: return decay_gate_as<DecayFormula::softplus>(a, begin, end);
    case DecayFormula::bounded: return decay_gate_as<DecayFormula::bounded>(a, begin, end);
    case DecayFormula::log_sigmoid: return decay_gate_as<DecayFormula::log_sigmoid>(a, begin, end);
    case DecayFormula::exponential: return decay_gate_as<DecayFormula::exponential>(a, begin, end);
    case DecayFormula::lower_bounded: return decay_gate_as<DecayFormula::lower_bounded>(a, begin, end);
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
  check(a);
  if (a.formula == DecayFormula::lower_bounded)
    for (Index c = 0; c < a.x.shape[1]; ++c)
      if (!(a.lower_bound(c) >= 0 && a.lower_bound(c) <= 1))
        refuse("decay_gate", "lower_bound[", c, "] is ", a.lower_bound(c), ", expected 0 to 1");
  trace(exec, "decay_gate", name(a.formula), to_string(a.x.shape));
  parallel_rows(exec, a.x.shape[0], a.x.shape[1], [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, decay_gate_rows)(a, begin, end);
  });
  if (a.beta) activate(Activate{a.beta_logits, {}, a.beta, Activation::sigmoid, a.beta_scale}, exec);
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
