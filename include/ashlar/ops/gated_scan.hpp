// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"
#include "ashlar/core/recurrent_state.hpp"

namespace ashlar {
inline namespace v0 {

// The elementwise gated recurrence of HGRN (Qin, Yang and Zhong, 2023), for each channel of each sequence:
//   h_t = exp(g_t) h_{t-1} + x_t,  out_t = h_t
// A state is a RecurrentState(1, 1, D). Refused, before anything is written: shapes that differ, a log decay
// that is positive or NaN (which, and where), bad offsets, states of another shape, number or type than f32,
// states that keep updates of linear_recurrence or of several substeps. `out` may be `x`. Backward
// needs g and out.
template <class T, class State = RecurrentState>
struct GatedScanArgs {
  View<const T, 2> x;  // [T, D]
  View<const T, 2> g;  // [T, D], log decay <= 0, -inf allowed
  View<T, 2> out;      // [T, D]
  Offsets offsets;
  std::span<State* const> states;  // one a sequence, read and updated; empty: start from zero, keep nothing
};
using GatedScan = GatedScanArgs<float>;

void hgrn(const GatedScan& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
