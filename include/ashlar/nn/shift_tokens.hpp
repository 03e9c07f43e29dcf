// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/sequence_batch.hpp"
#include "ashlar/ops/token_shift.hpp"

namespace ashlar {
inline namespace v0 {

// token_shift with a batch's states: x [T, C], mu and out [M, T, C].
template <class Exec>
void shift_tokens(View<const float, 2> x, View<const float, 3> mu, View<float, 3> out,
                  const SequenceBatch<Exec>& batch, InputsOf<Exec> inputs, Exec& exec, bool advance = true) {
  const InputTails<Exec> last(batch, inputs, x, exec, 0, advance);
  token_shift(TokenShift{x, mu, out, batch.offsets, last, advance}, exec);
}

}  // namespace v0
}  // namespace ashlar
