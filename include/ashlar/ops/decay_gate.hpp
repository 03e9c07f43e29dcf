// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <limits>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// How a linear recurrence's log decay g <= 0 comes from its logits x, with rate = exp(a_log), or 1 without:
//   softplus       -rate step, step = clamp(softplus(x + dt_bias), min_step, max_step)
//                  (Mamba-2, Dao and Gu, 2024; Gated DeltaNet, Yang, Kautz and Hatamizadeh, 2024; KDA, Kimi
//                  Team, 2025)
//   bounded        bound sigmoid(rate (x + dt_bias)), in (bound, 0): KDA's safe gate with bound -5, and
//                  RWKV-7 (Peng et al., 2025) with bound -e^(-1/2), kRwkv7Bound
//   log_sigmoid    max(logsigmoid(x + dt_bias) / temperature, floor) (GLA, Yang et al., 2024)
//   exponential    -exp(x + dt_bias) (RWKV-6, Peng et al., 2024)
//   lower_bounded  ln(lb + (1 - lb) sigmoid(x + dt_bias)), lb the lower_bound of the channel; logsigmoid
//                  where it is 0 (HGRN and HGRN2, Qin et al., 2023, 2024)
enum class DecayFormula : std::uint8_t { softplus, bounded, log_sigmoid, exponential, lower_bounded };

inline constexpr float kRwkv7Bound = -0.6065306597126334f;

// out = formula(x) for each token and channel; a channel is a head, or a key channel of a head, and then all
// of a head's D / H channels have its a_log. Small decays keep their relative accuracy, and so
// does 1 - exp(g), HGRN's input gate. Refused: shapes that differ, heads that do not divide the channels, an
// argument that the formula does not read, a bound or floor that is positive, a temperature that is not
// positive, steps out of order, lower bounds outside [0, 1]. A NaN stays one. `out` may be `x`. Backward
// needs the inputs.
template <class T>
struct DecayGateArgs {
  View<const T, 2> x;        // [T, D]
  View<const T, 1> a_log;    // [H], of softplus and bounded; empty: rate 1
  View<const T, 1> dt_bias;  // [D]; empty: none
  View<T, 2> out;            // [T, D]
  DecayFormula formula = DecayFormula::softplus;
  T bound = T(-5);                                // of bounded
  T temperature = 1;                              // of log_sigmoid
  T floor = -std::numeric_limits<T>::infinity();  // of log_sigmoid
  View<const T, 1> lower_bound;                   // [D], of lower_bounded
  View<T, 2> step;                                // [T, D], softplus's step, Mamba-2's dt; empty: not wanted
  T min_step = 0;                                 // of softplus
  T max_step = std::numeric_limits<T>::infinity();  // of softplus
  View<T, 2> complement;  // [T, D], 1 - exp(out), a tied input gate; empty: not wanted
  // The other gate of a delta rule, its strength: beta = beta_scale sigmoid(beta_logits); empty: not wanted.
  // `beta` may be `beta_logits`.
  View<const T, 2> beta_logits;  // [T, H]
  View<T, 2> beta;               // [T, H]
  T beta_scale = 1;
};
using DecayGate = DecayGateArgs<float>;

void decay_gate(const DecayGate& args, CpuExec& exec);

// Log decays that are constants of a head h, for constant_decay. All refuse counts that are not positive and
// a layer outside [0, layers).
//
// RetNet (Sun et al., 2023): ln(1 - 2^(-5 - h)).
Tensor<float, 1> retention_decay(Index heads);
// Lightning attention (Qin et al., 2024), as flash-linear-attention has it: -(8 / H) (1 - layer / layers) h.
Tensor<float, 1> lightning_decay(Index heads, Index layer, Index layers);
// Lightning attention in MiniMax-01 (2025): -2^(-8 (h + 1) / H) (1 - layer / (layers - 1 + 1e-5) + 1e-5).
Tensor<float, 1> minimax_decay(Index heads, Index layer, Index layers);

}  // namespace v0
}  // namespace ashlar
