// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"
#include "ashlar/core/recurrent_state.hpp"

namespace ashlar {
inline namespace v0 {

// How the tokens of a call are worked through. The forms agree but for rounding. `automatic`: one token of a
// sequence is a step, more are recurrent below 512 key channels, and chunks of 32 from there on, as measured
// (docs/numerics-and-determinism.md); the same for every batch and number of threads.
enum class RecurrenceForm : std::uint8_t { automatic, recurrent, chunk };

// Asks for a copy of a sequence's state after the first `tokens` of its tokens in this call, for a prefix
// cache.
template <class State>
struct StateRequestOf {
  Index sequence = 0, tokens = 0;
  State* state = nullptr;
};
using StateRequest = StateRequestOf<RecurrentState>;

// The linear recurrence of the whole family, over each sequence, for each head h, with a state S [Dk, Dv]:
//   S'_t = D_t S_{t-1}                                       decay: D_t = exp(g_t), or diag(exp(gk_t)), or 1
//   S_t  = S'_t + k_t v_t^T                                  no transition
//   S_t  = S'_t + k_t [beta_t (v_t - S'_t^T k_t)]^T          delta rule (beta)
//   S_t  = S'_t + b_t (S_{t-1}^T a_t)^T + k_t v_t^T          diagonal plus low rank (a, b)
//   o_t  = scale S_t^T q_t                                   read after the update
//   o_t  = scale (S_{t-1} + diag(bonus) k_t v_t^T)^T q_t     read before it (bonus)
// 2 Dk Dv multiply-adds a token and head, 3 with the delta rule, 4 with a and b; another Dk Dv products with
// a decay, unless it is kept outside of S.
//
// Heads: out has H heads; the H' heads of every other argument divide H, and head h uses their head h / (H /
// H'). A decay that is the same for each token is a view with stride 0 (constant_decay). Substeps n
// (DeltaProduct): k, v, beta, a and b have n rows a token, in time order; the decay comes before the first of
// them and the read after the last. Normalised: out_t is divided by q_t z_t + normalizer_eps, where z_t (a
// value column of ones) is the last column of the states, which then have Dv + 1.
//
// Sources: linear attention, Katharopoulos et al., 2020; delta rule, Schlag et al., 2021; RetNet, Sun et al.,
// 2023; GLA, Yang et al., 2024; Mamba-2, Dao and Gu, 2024; DeltaNet's chunks, Yang et al., 2024; RWKV-6 and
// 7, Peng et al., 2024, 2025; Gated DeltaNet, Yang, Kautz and Hatamizadeh, 2024; DeltaProduct, Siems et al.,
// 2025; KDA, Kimi Team, 2025. Sums are f32, log decays are summed in f64, no exponential of a positive number
// is formed. Refused, before anything is written: shapes that differ, heads that do not divide, both g and
// gk, beta with a or b, a without b, a bonus or normalize with a transition or with each other, a log decay
// that is positive or NaN (which, and where), bad offsets, states of another shape or number or given twice,
// states that keep updates of other substeps, requests outside their sequence. `out` must not overlap the
// inputs. Backward needs the inputs and the states at chunk borders.
template <class T, class State = RecurrentState>
struct LinearRecurrenceArgs {
  View<const T, 3> q;              // [T, H', Dk]
  View<const T, 3> k;              // [T n, H', Dk]
  View<const T, 3> v;              // [T n, H', Dv]
  View<const T, 2> g;              // [T, H'], log decay <= 0 of a head, -inf allowed; empty: none
  View<const T, 2> beta;           // [T n, H']; empty: no delta rule
  View<T, 3> out;                  // [T, H, Dv]
  T scale = 0;                     // 0: Dk^-1/2
  Offsets offsets;                 // of the tokens
  std::span<State* const> states;  // one a sequence, read and updated; empty: start from zero, keep nothing
  View<const T, 3> gk;             // [T, H', Dk], log decay of each key channel; empty: none
  View<const T, 3> a, b;           // [T n, H', Dk]; empty: no low-rank transition
  View<const T, 2> bonus;          // [H', Dk]; empty: read after the update
  Index substeps = 1;
  bool normalize = false;
  T normalizer_eps = T(1e-10);
  std::span<const StateRequestOf<State>> requests;
  RecurrenceForm form = RecurrenceForm::automatic;
  Index chunk = 0;  // rows of k a chunk of the chunk form; 0: the measured best
};
using LinearRecurrence = LinearRecurrenceArgs<float>;

void linear_recurrence(const LinearRecurrence& args, CpuExec& exec);

// [T, H] from one log decay a head, and [T, H, Dk] from one a head and key channel.
template <class T>
View<const T, 2> constant_decay(View<const T, 1> g, Index tokens) {
  return {g.data, {tokens, g.shape[0]}, {0, 1}};
}
template <class T>
View<const T, 3> constant_decay(View<const T, 2> gk, Index tokens) {
  return {gk.data, {tokens, gk.shape[0], gk.shape[1]}, {0, gk.strides[0], 1}};
}

}  // namespace v0
}  // namespace ashlar
