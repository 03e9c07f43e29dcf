// SPDX-License-Identifier: Apache-2.0
// The recurrences with a low-rank transition.
#include "src/cpu/recurrence.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/recurrence_low_rank.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "src/cpu/recurrence-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

void run_low_rank(const RecurrenceTask& p, std::span<const StateCopy> copies) {
  run_recurrence<Transition::low_rank, false>(p, copies);
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
HWY_EXPORT(run_low_rank);
}  // namespace kernels

void detail::run_low_rank(Isa isa, const kernels::RecurrenceTask& p,
                          std::span<const kernels::StateCopy> copies) {
  ASHLAR_DISPATCH_ISA(isa, run_low_rank)(p, copies);
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
