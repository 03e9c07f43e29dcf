// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"

namespace ashlar {
inline namespace v0 {

// RWKV's token shift (Peng et al., 2023): each token is mixed with the one before it in its sequence, in M
// ways at once,
//   out[m, t, c] = x[t, c] + mu[m, t, c] (x[t - 1, c] - x[t, c])
// Weights that are the same for each token are constant_mix(mu); RWKV-6 computes its own for each
// (data-dependent linear interpolation). The input before a sequence's first token comes from its state [C],
// or is zero without one. A state is read and, with `advance`, left holding the sequence's last input, so
// that a sequence may be cut anywhere. Refused: shapes that differ, bad offsets, a number of states that is
// not the number of sequences. `out` must not overlap `x`. Backward needs x, mu and the incoming state.
template <class T>
struct TokenShiftArgs {
  View<const T, 2> x;   // [T, C]
  View<const T, 3> mu;  // [M, T, C]
  View<T, 3> out;       // [M, T, C]
  Offsets offsets;
  std::span<T* const> states;  // one a sequence; empty: start from zeros, keep nothing
  bool advance = true;
};
using TokenShift = TokenShiftArgs<float>;

void token_shift(const TokenShift& args, CpuExec& exec);

// [M, T, C] from weights [M, C] for all tokens.
template <class T>
View<const T, 3> constant_mix(View<const T, 2> mu, Index tokens) {
  return {mu.data, {mu.shape[0], tokens, mu.shape[1]}, {mu.strides[0], 0, 1}};
}

}  // namespace v0
}  // namespace ashlar
