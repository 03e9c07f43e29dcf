// SPDX-License-Identifier: Apache-2.0
// What linear_recurrence() refuses.
#include <algorithm>
#include <atomic>

#include "src/core/recurrence_check.hpp"
#include "src/cpu/recurrence.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/recurrence_check.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/linear_recurrence-inl.hpp"
#include "ashlar/kernels/recurrence_chunk-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

Index recurrence_scratch(const RecurrenceTask& p) {
  const Index form =
      HWY_MAX(recurrent_scratch(p.key_dim), p.chunk == 0 ? 0 : chunk_scratch(p.chunk, p.key_dim));
  return form + 2 * p.panels() * p.key_dim * kPanel;  // and two states
}

// Whether all are <= 0 (and none is NaN).
bool log_decays(const float* g, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  auto good = hn::Le(hn::Zero(d), hn::Zero(d));
  Index i = 0;
  for (; i + lanes <= n; i += lanes) good = hn::And(good, hn::Le(hn::LoadU(d, g + i), hn::Zero(d)));
  bool all = hn::AllTrue(d, good);
  for (; i < n; ++i) all = all && g[i] <= 0;
  return all;
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
HWY_EXPORT(log_decays);
HWY_EXPORT(recurrence_scratch);
}  // namespace kernels
namespace {

constexpr std::string_view kOp = "linear_recurrence";

template <int Rank>
bool all_log_decays(View<const float, Rank> g, CpuExec& exec) {
  if (g.strides[0] == 0) g = g.slice(0, 0, std::min<Index>(1, g.shape[0]));
  std::atomic<bool> good = true;
  parallel_rows(exec, g.shape[0], g.size() / std::max<Index>(1, g.shape[0]), [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      if constexpr (Rank == 2) {
        if (!ASHLAR_DISPATCH(exec, log_decays)(g.at(t), g.shape[1])) good = false;
      } else {
        for (Index h = 0; h < g.shape[1]; ++h)
          if (!ASHLAR_DISPATCH(exec, log_decays)(g.at(t, h), g.shape[2])) good = false;
      }
  });
  return good;
}

void check_decays(const LinearRecurrence& a, CpuExec& exec) {
  auto check = [](double g, const std::string& place) {
    if (!(g <= 0)) refuse(kOp, place, " is ", g, ", expected a log decay <= 0");
  };
  if (a.g && !all_log_decays(a.g, exec))
    for (Index t = 0; t < a.g.shape[0]; ++t)
      for (Index h = 0; h < a.g.shape[1]; ++h)
        check(static_cast<double>(a.g(t, h)), concat("g", to_string<2>({t, h})));
  if (a.gk && !all_log_decays(a.gk, exec))
    for (Index t = 0; t < a.gk.shape[0]; ++t)
      for (Index h = 0; h < a.gk.shape[1]; ++h)
        for (Index i = 0; i < a.gk.shape[2]; ++i)
          check(static_cast<double>(a.gk(t, h, i)), concat("gk", to_string<3>({t, h, i})));
}

void check_histories(const LinearRecurrence& a) {
  for (const RecurrentState* state : a.states)
    if (const auto& h = state->history(); h.keep != 0 && h.substeps != a.substeps)
      refuse(kOp, "a state keeps updates of ", h.substeps, " substeps a token, expected ", a.substeps);
    else if (h.whole)
      refuse(kOp, "a state keeps updates of a scan, expected none or a linear recurrence's");
}

}  // namespace

Index detail::recurrence_scratch(Isa isa, const kernels::RecurrenceTask& p) {
  return ASHLAR_DISPATCH_ISA(isa, recurrence_scratch)(p);
}

void detail::check_recurrence(const LinearRecurrence& a, CpuExec& exec) {
  check(a);
  check_histories(a);
  check_decays(a, exec);
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
