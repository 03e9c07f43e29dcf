// SPDX-License-Identifier: Apache-2.0
// What linear_recurrence() refuses, wherever it runs; what lies in arrays is not looked at.
#pragma once
#include <algorithm>

#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

inline constexpr std::string_view kRecurrence = "linear_recurrence";

// A view of `rows` rows whose heads divide those of out; its last axis is `width` where it has one.
template <int Rank>
void check_rows(std::string_view what, const View<const float, Rank>& x, Index rows, Index heads,
                Index width) {
  const Index mine = x.shape[1];
  auto refuse_heads = [&] {
    refuse(kRecurrence, what, " has ", mine, " heads, expected a divisor of the ", heads, " of out");
  };
  if (mine != 0 && heads % mine != 0) refuse_heads();
  std::array<Index, Rank> want{rows, mine};
  if constexpr (Rank == 3) want[2] = width;
  expect_shape(kRecurrence, what, x, want);
  if (mine == 0) refuse_heads();
}

template <class Args>
void check_combination(const Args& a) {
  if (a.g && a.gk) refuse(kRecurrence, "both g and gk were given, expected one decay");
  if (a.beta && (a.a || a.b)) refuse(kRecurrence, "beta was given with a or b, expected one transition");
  if (static_cast<bool>(a.a) != static_cast<bool>(a.b))
    refuse(kRecurrence, a.a ? "a was given without b" : "b was given without a", ", expected both or none");
  const bool transition = a.beta || a.a;
  if (a.bonus && transition) refuse(kRecurrence, "bonus was given with a transition, expected no transition");
  if (a.normalize && transition)
    refuse(kRecurrence, "normalize is set with a transition, expected no transition");
  if (a.bonus && a.normalize)
    refuse(kRecurrence, "normalize is set with a bonus, expected a read after the update");
  if (a.substeps < 1) refuse(kRecurrence, "substeps is ", a.substeps, ", expected at least 1");
  if (a.chunk < 0) refuse(kRecurrence, "chunk is ", a.chunk, ", expected 0 (default) or more");
}

template <class State>
void check_state(std::string_view what, const State* s, const std::array<Index, 3>& want) {
  if (s == nullptr || std::array{s->heads(), s->key_dim(), s->value_dim()} != want)
    refuse(kRecurrence, what, " has shape ",
           s == nullptr ? "none" : to_string<3>({s->heads(), s->key_dim(), s->value_dim()}), ", expected ",
           to_string(want));
}

template <class Args>
void check_states(const Args& a) {
  const auto [tokens, heads, dv] = a.out.shape;
  const std::array<Index, 3> want{heads, a.k.shape[2], dv + (a.normalize ? 1 : 0)};
  const Index sequences = a.offsets.count();
  if (!a.states.empty() && static_cast<Index>(a.states.size()) != sequences)
    refuse(kRecurrence, "there are ", a.states.size(), " states, expected one for each of ", sequences,
           " sequences");
  for (std::size_t n = 0; n < a.states.size(); ++n) {
    check_state("a state", a.states[n], want);
    for (std::size_t other = 0; other < n; ++other)
      if (a.states[other] == a.states[n])
        refuse(kRecurrence, "states ", other, " and ", n, " are the same, expected one a sequence");
  }
  for (std::size_t i = 0; i < a.requests.size(); ++i) {
    const auto& r = a.requests[i];
    if (r.sequence < 0 || r.sequence >= sequences)
      refuse(kRecurrence, "requests[", i, "] is of sequence ", r.sequence, ", expected 0 to ", sequences - 1);
    const Index length = a.offsets.end(r.sequence, tokens) - a.offsets.begin(r.sequence);
    if (r.tokens < 0 || r.tokens > length)
      refuse(kRecurrence, "requests[", i, "] is after ", r.tokens, " tokens, expected 0 to ", length);
    check_state(concat("the state of requests[", i, "]"), r.state, want);
    for (std::size_t other = 0; other < i; ++other)
      if (a.requests[other].state == r.state)
        refuse(kRecurrence, "requests[", other, "] and [", i, "] have the same state, expected one each");
    if (std::find(a.states.begin(), a.states.end(), r.state) != a.states.end())
      refuse(kRecurrence, "requests[", i, "] has the state of a sequence, expected one of its own");
  }
}

}  // namespace detail

template <class State>
void check(const LinearRecurrenceArgs<float, State>& a) {
  using namespace detail;
  constexpr std::string_view kOp = detail::kRecurrence;
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
}

}  // namespace v0
}  // namespace ashlar
