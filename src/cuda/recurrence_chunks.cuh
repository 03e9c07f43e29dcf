// SPDX-License-Identifier: Apache-2.0
// The recurrence with one decay a head, with the delta rule or without a transition, in chunks of 64 rows:
// what its two kernels share. With G_i the sum of the log decays of a chunk up to row i, G the whole sum, and
// everything of one chunk and head:
//   T  = (I + L)^-1,  L_ij = beta_i exp(G_i - G_j) k_i k_j for j < i   (I without the delta rule)
//   W  = T diag(beta exp(G_i)) K,  U0 = T diag(beta) V                 made by chunk_local, in parallel
//   Qe = scale exp(G_i) Q,  Ke = exp(G - G_i) K,  A_ij = scale exp(G_i - G_j) q_i k_j for j <= i
//   U  = U0 - W S,  O = Qe S + A U,  S <- exp(G) S + Ke^T U            made by chunk_pass, chunk after chunk
// (Yang et al., 2024, "Parallelizing linear transformers with the delta rule over sequence length"; Yang,
// Kautz and Hatamizadeh, 2024, with the decay.) Operands are rounded to bf16, sums, S and T are f32.
#pragma once
#include "src/cuda/mma.cuh"
#include "src/cuda/recurrence.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {

constexpr int kChunk = 64;  // rows
constexpr int kGap = 8;     // between rows in shared memory: 16 bytes, for ldmatrix
constexpr int kSquareRow = kChunk + kGap;

struct ChunkSequence {
  Index begin, end;  // rows of k
  float* state;
  Index first_chunk;
  bool starts;  // from zeros, whatever `state` has
  __host__ __device__ Index chunks() const { return (end - begin + kChunk - 1) / kChunk; }
};

struct ChunkCall {
  RecurrenceCall call;
  ArgumentList<ChunkSequence, kFewRecurrences> sequences;
  Index first = 0, last = 0;  // the chunks that are worked on
  int keys = 0, key_row = 0;  // channels, padded to 16, and elements from row to row
  int panel = 0, panels = 0;  // columns of the state that a block of chunk_pass has
  int count = 0;              // of sequences
  bool by_four = false;
  // For each chunk and head, laid out as chunk_pass has them in shared memory: W (with the delta rule), Qe,
  // Ke [64, key_row] and A [64, 72]; U0 [panels, 64, panel + 8]; exp(G).
  bf16 *squares = nullptr, *values = nullptr;
  float* decay = nullptr;

  __host__ __device__ int square_elements(bool delta) const {
    return kChunk * ((delta ? 3 : 2) * key_row + kSquareRow);
  }
  __host__ __device__ int panel_elements() const { return kChunk * (panel + kGap); }
};

// Runs chunk_local over the chunks [first, last) of all heads.
void launch_chunk_local(const ChunkCall& p, CudaExec& exec);

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
