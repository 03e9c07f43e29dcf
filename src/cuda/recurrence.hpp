// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/cuda/device_recurrent_state.hpp"
#include "src/cuda/launch.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {

constexpr int kFewRecurrences = 16;
constexpr Index kLeastForChunks = 16;  // tokens of a sequence

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
  int substeps = 1;
  float scale = 1;
  Index tokens = 0;
};

// Token after token: every member of the family.
void recurrence_by_token(const RecurrenceCall& call, std::span<const RecurrenceSequence> sequences,
                         CudaExec& exec);

// In chunks of 64 rows by tensor cores with operands of bf16 (recurrence_chunks.cuh): what has at most one
// decay a head, and the delta rule or no transition.
bool recurrence_chunks_take(const RecurrenceCall& call);
void recurrence_in_chunks(const RecurrenceCall& call, std::span<const RecurrenceSequence> sequences,
                          CudaExec& exec);

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
