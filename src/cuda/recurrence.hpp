// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/cuda/device_recurrent_state.hpp"
#include "src/cuda/launch.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {

constexpr int kFewRecurrences = 16;

struct RecurrenceSequence {
  Index begin, end;  // tokens
  float* state;      // [H, columns, Dk]; null: zeros, not kept
};
using RecurrenceSequences = ArgumentList<RecurrenceSequence, kFewRecurrences>;

// An argument whose H' heads divide the H of the output: where token (or row) t of output head h is.
struct RecurrenceInput {
  const float* data = nullptr;  // null: not given
  Index row = 0, head = 0;      // strides
  int share = 1;                // output heads a head
  __device__ const float* at(Index t, int h) const { return data + t * row + h / share * head; }
};

struct RecurrenceCall {
  RecurrenceInput q, k, v, g, gk, beta, a, b, bonus;
  float* out = nullptr;
  Index out_row = 0, out_head = 0;
  int heads = 0, key_dim = 0, value_dim = 0, columns = 0;  // columns: of the state, value_dim or one more
  int substeps = 1, count = 0;                             // count: of sequences
  float scale = 1;
  Index longest = 0, tokens = 0;
};

// Token after token: every member of the family.
void recurrence_by_token(const RecurrenceCall& call, const RecurrenceSequences& sequences, CudaExec& exec);

// Gated delta rule in chunks, by tensor cores with operands of bf16: false where it does not take the call.
bool recurrence_in_chunks(const RecurrenceCall& call, const RecurrenceSequences& sequences, CudaExec& exec);

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
