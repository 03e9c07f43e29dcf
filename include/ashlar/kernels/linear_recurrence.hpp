// SPDX-License-Identifier: Apache-2.0
// What the recurrence engine is told: its policies, and one panel of work.
#pragma once
#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {
namespace kernels {

// Decay x transition of a recurrence.
template <bool decay, bool delta>
struct RecurrencePolicy {
  static constexpr bool kDecay = decay;  // one log decay a token and head
  static constexpr bool kDelta = delta;  // delta rule, else none
};

// The scalars of a block of tokens (see linear_recurrence-inl.hpp); row j is token j of the block.
struct BlockCoefficients {
  static constexpr int kTokens = 4;
  float decay[kTokens];               // e_j
  float read_decay[kTokens];          // scale e_j
  float tail[kTokens];                // w_last,j
  float key_key[kTokens][kTokens];    // w_jl (k_j k_l), l < j
  float query_key[kTokens][kTokens];  // scale w_jl (q_j k_l), l <= j
};

// One or more panels of one head of one sequence: pointers to its first token, strides from token to token.
struct RecurrenceTask {
  static constexpr Index kMaxKeyDim = 1024;  // of the blocked form; larger keys go token by token
  static constexpr Index kPitch =
      kMaxKeyDim + 16;  // between scratch rows: not a multiple of the L1 way's 4 KiB

  const float *q, *k, *v, *g, *beta;
  float* out;
  Index q_stride, k_stride, v_stride, g_stride, beta_stride, out_stride;
  Index tokens, key_dim, columns;
  float scale;
  float* state;    // [ceil(columns / 64)][Dk][64]
  float* scratch;  // scratch_size(columns)

  static constexpr Index scratch_size(Index columns) {
    return BlockCoefficients::kTokens * (3 * kPitch + (columns + 63) / 64 * 64);
  }
};

}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
