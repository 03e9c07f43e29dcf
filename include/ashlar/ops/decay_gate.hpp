// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// The log decay of a linear recurrence, in the form of Mamba-2 and Gated DeltaNet (Dao and Gu, 2024; Yang,
// Kautz and Hatamizadeh, 2024):
//   out[t, h] = -exp(a_log[h]) * softplus(x[t, h] + dt_bias[h])  <= 0
// The strength beta of the delta rule is `activate` with a sigmoid, and scale 2 where eigenvalues may be
// negative. Refused: shapes that differ. `out` may be `x`. Backward needs x, a_log, dt_bias.
template <class T>
struct DecayGateArgs {
  View<const T, 2> x;        // [T, H]
  View<const T, 1> a_log;    // [H]
  View<const T, 1> dt_bias;  // [H]; empty: none
  View<T, 2> out;            // [T, H]
};
using DecayGate = DecayGateArgs<float>;

void decay_gate(const DecayGate& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
