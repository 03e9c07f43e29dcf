// SPDX-License-Identifier: Apache-2.0
// What linear_recurrence() is made of.
#pragma once
#include <span>

#include "ashlar/kernels/linear_recurrence.hpp"
#include "src/cpu/dispatch.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// A task on an instruction set, by its transition.
void run_none(Isa isa, const kernels::RecurrenceTask& p, std::span<const kernels::StateCopy> copies);
void run_delta(Isa isa, const kernels::RecurrenceTask& p, std::span<const kernels::StateCopy> copies);
void run_low_rank(Isa isa, const kernels::RecurrenceTask& p, std::span<const kernels::StateCopy> copies);

// Floats of scratch memory that a task needs.
Index recurrence_scratch(Isa isa, const kernels::RecurrenceTask& p);

// Refuses what the op refuses; checks the decays on exec's threads.
void check_recurrence(const LinearRecurrence& args, CpuExec& exec);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
