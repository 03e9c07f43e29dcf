// SPDX-License-Identifier: Apache-2.0
// The choice of a recurrence's decay and form, for the files that compile them.
#if defined(ASHLAR_SRC_CPU_RECURRENCE_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_SRC_CPU_RECURRENCE_INL_HPP_
#undef ASHLAR_SRC_CPU_RECURRENCE_INL_HPP_
#else
#define ASHLAR_SRC_CPU_RECURRENCE_INL_HPP_
#endif

#include "ashlar/kernels/linear_recurrence-inl.hpp"
#include "ashlar/kernels/recurrence_chunk-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

template <class Policy>
void run_form(const RecurrenceTask& p, std::span<const StateCopy> copies) {
  if (p.chunk != 0) return recur<Policy, ChunkForm>(p, copies);
  recur<Policy, RecurrentForm>(p, copies);
}

template <Transition transition, bool early>
void run_recurrence(const RecurrenceTask& p, std::span<const StateCopy> copies) {
  if (p.gk) return run_form<RecurrencePolicy<Decay::vector, transition, early>>(p, copies);
  if (p.g) return run_form<RecurrencePolicy<Decay::scalar, transition, early>>(p, copies);
  run_form<RecurrencePolicy<Decay::none, transition, early>>(p, copies);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
