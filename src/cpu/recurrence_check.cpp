// SPDX-License-Identifier: Apache-2.0
// What linear_recurrence() refuses.
#include <algorithm>
#include <atomic>

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

// A view of `rows` rows whose heads divide those of out; its last axis is `width` where it has one.
template <int Rank>
void check_rows(std::string_view what, const View<const float, Rank>& x, Index rows, Index heads,
                Index width) {
  const Index mine = x.shape[1];
  auto refuse_heads = [&] {
    refuse(kOp, what, " has ", mine, " heads, expected a divisor of the ", heads, " of out");
  };
  if (mine != 0 && heads % mine != 0) refuse_heads();
  std::array<Index, Rank> want{rows, mine};
  if constexpr (Rank == 3) want[2] = width;
  expect_shape(kOp, what, x, want);
  if (mine == 0) refuse_heads();
}

void check_combination(const LinearRecurrence& a) {
  if (a.g && a.gk) refuse(kOp, "both g and gk were given, expected one decay");
  if (a.beta && (a.a || a.b)) refuse(kOp, "beta was given with a or b, expected one transition");
  if (static_cast<bool>(a.a) != static_cast<bool>(a.b))
    refuse(kOp, a.a ? "a was given without b" : "b was given without a", ", expected both or none");
  const bool transition = a.beta || a.a;
  if (a.bonus && transition) refuse(kOp, "bonus was given with a transition, expected no transition");
  if (a.normalize && transition) refuse(kOp, "normalize is set with a transition, expected no transition");
  if (a.bonus && a.normalize) refuse(kOp, "normalize is set with a bonus, expected a read after the update");
  if (a.substeps < 1) refuse(kOp, "substeps is ", a.substeps, ", expected at least 1");
  if (a.chunk < 0) refuse(kOp, "chunk is ", a.chunk, ", expected 0 (default) or more");
}

void check_state(std::string_view what, const RecurrentState* s, const std::array<Index, 3>& want) {
  if (s == nullptr || std::array{s->heads(), s->key_dim(), s->value_dim()} != want)
    refuse(kOp, what, " has shape ",
           s == nullptr ? "none" : to_string<3>({s->heads(), s->key_dim(), s->value_dim()}), ", expected ",
           to_string(want));
}

void check_states(const LinearRecurrence& a) {
  const auto [tokens, heads, dv] = a.out.shape;
  const std::array<Index, 3> want{heads, a.k.shape[2], dv + (a.normalize ? 1 : 0)};
  const Index sequences = a.offsets.count();
  if (!a.states.empty() && static_cast<Index>(a.states.size()) != sequences)
    refuse(kOp, "there are ", a.states.size(), " states, expected one for each of ", sequences, " sequences");
  for (std::size_t n = 0; n < a.states.size(); ++n) {
    check_state("a state", a.states[n], want);
    for (std::size_t other = 0; other < n; ++other)
      if (a.states[other] == a.states[n])
        refuse(kOp, "states ", other, " and ", n, " are the same, expected one a sequence");
    if (const auto& h = a.states[n]->history(); h.keep != 0 && h.substeps != a.substeps)
      refuse(kOp, "a state keeps updates of ", h.substeps, " substeps a token, expected ", a.substeps);
    else if (h.whole)
      refuse(kOp, "a state keeps updates of a scan, expected none or a linear recurrence's");
  }
  for (std::size_t i = 0; i < a.requests.size(); ++i) {
    const StateRequest& r = a.requests[i];
    if (r.sequence < 0 || r.sequence >= sequences)
      refuse(kOp, "requests[", i, "] is of sequence ", r.sequence, ", expected 0 to ", sequences - 1);
    const Index length = a.offsets.end(r.sequence, tokens) - a.offsets.begin(r.sequence);
    if (r.tokens < 0 || r.tokens > length)
      refuse(kOp, "requests[", i, "] is after ", r.tokens, " tokens, expected 0 to ", length);
    check_state(concat("the state of requests[", i, "]"), r.state, want);
    for (std::size_t other = 0; other < i; ++other)
      if (a.requests[other].state == r.state)
        refuse(kOp, "requests[", other, "] and [", i, "] have the same state, expected one each");
    if (std::find(a.states.begin(), a.states.end(), r.state) != a.states.end())
      refuse(kOp, "requests[", i, "] has the state of a sequence, expected one of its own");
  }
}

}  // namespace

Index detail::recurrence_scratch(Isa isa, const kernels::RecurrenceTask& p) {
  return ASHLAR_DISPATCH_ISA(isa, recurrence_scratch)(p);
}

void detail::check_recurrence(const LinearRecurrence& a, CpuExec& exec) {
  const auto [tokens, heads, dv] = a.out.shape;
  const Index dk = a.k.shape[2];
  check_combination(a);
  Index rows = 0;
  if (__builtin_mul_overflow(tokens, a.substeps, &rows))
    refuse(kOp, "substeps is ", a.substeps, ", expected k of ", tokens, " times as many rows");
  expect_shape(kOp, "out", a.out, a.out.shape);
  if (heads == 0 || dk == 0 || dv == 0)
    refuse(kOp, "k has shape ", to_string(a.k.shape), " and out ", to_string(a.out.shape),
           ", expected heads and channels");
  check_rows("k", a.k, rows, heads, dk);
  check_rows("q", a.q, tokens, heads, dk);
  check_rows("v", a.v, rows, heads, dv);
  if (a.g) check_rows("g", a.g, tokens, heads, 0);
  if (a.gk) check_rows("gk", a.gk, tokens, heads, dk);
  if (a.beta) check_rows("beta", a.beta, rows, heads, 0);
  if (a.a) check_rows("a", a.a, rows, heads, dk);
  if (a.b) check_rows("b", a.b, rows, heads, dk);
  if (a.bonus) {
    const Index mine = a.bonus.shape[0];
    expect_shape(kOp, "bonus", a.bonus, {mine, dk});
    if (mine == 0 || heads % mine != 0)
      refuse(kOp, "bonus has ", mine, " heads, expected a divisor of the ", heads, " of out");
  }
  a.offsets.check(kOp, tokens);
  check_states(a);
  check_decays(a, exec);
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
