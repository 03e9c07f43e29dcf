// SPDX-License-Identifier: Apache-2.0
// What the recurrence engine is told: its policies, and one piece of work.
#pragma once
#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {
namespace kernels {

enum class Decay : std::uint8_t { none, scalar, vector };
enum class Transition : std::uint8_t { none, delta, low_rank };

template <Decay decay, Transition transition, bool early = false>
struct RecurrencePolicy {
  static constexpr Decay kDecay = decay;
  static constexpr Transition kTransition = transition;
  static constexpr bool kEarly = early;  // reads before the update, with a bonus
  static constexpr bool kVector = decay == Decay::vector;
  static constexpr bool kDelta = transition == Transition::delta;
  static constexpr bool kLowRank = transition == Transition::low_rank;
};

// A row of an argument for each token, or each substep.
struct TokenRows {
  const float* data = nullptr;
  Index stride = 0;
  const float* operator[](Index t) const { return data + t * stride; }
  explicit operator bool() const { return data != nullptr; }
};

// The tokens of one sequence, for some value columns of one head.
struct RecurrenceTask {
  TokenRows q, g, gk;            // a row a token
  TokenRows k, v, beta, a, b;    // a row a substep
  const float* bonus = nullptr;  // [Dk]
  float* out = nullptr;
  Index out_stride = 0;
  float* divisors = nullptr;  // one a token: where column `ones` of the reads goes
  Index divisor_stride = 0;
  Index tokens = 0, substeps = 1, key_dim = 0;
  Index columns = 0;  // of v and out; one more of the state with `ones`
  bool ones = false;  // the column behind them is a value of ones
  float scale = 1;
  void* state = nullptr;  // [ceil(columns / 64)][Dk][64]
  bool narrow = false;    // the state is bf16, else f32
  float* scratch = nullptr;
  Index chunk = 0;  // 0: the recurrent form

  // Tokens from `recorded` on run one by one, and leave their updates: update (i) of the head at
  // updates + (first_update + i) % update_slots * update_stride, and the state before them in `checkpoint`,
  // after `folded` updates that are already there were worked into it.
  Index recorded = 0;
  float* updates = nullptr;
  Index update_stride = 0, update_slots = 0, first_update = 0, folded = 0, kept = 0;
  Index update_columns = 0, first_column = 0;  // of a whole update; where this task's begin
  bool low_updates = false;                    // they have a low-rank part
  void* checkpoint = nullptr;

  Index state_columns() const { return columns + (ones ? 1 : 0); }
  Index panels() const { return (state_columns() + RecurrentState::kPanel - 1) / RecurrentState::kPanel; }
};

// Copies of a task's state after some of its tokens: where one begins, in its own type.
struct StateCopy {
  Index tokens = 0;
  void* state = nullptr;
  bool narrow = false;
};

}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
