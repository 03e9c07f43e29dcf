// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/sequence_batch.hpp"
#include "ashlar/ops/token_shift.hpp"

namespace ashlar {
inline namespace v0 {

// Where a layer keeps the last input of a token shift, [1, C].
template <class Exec>
using TokenState = typename Backend<Exec>::template Array<float, 2> LayerState<Exec>::*;

// token_shift with a batch's states: x [T, C], mu and out [M, T, C].
template <class Exec>
void shift_tokens(View<const float, 2> x, View<const float, 3> mu, View<float, 3> out,
                  const SequenceBatch<Exec>& batch, TokenState<Exec> state, Exec& exec, bool advance = true) {
  typename Backend<Exec>::HostScratch scratch(exec);
  const std::size_t n = batch.states.size();
  const auto last = scratch.template get<float*>(n);
  for (std::size_t i = 0; i < n; ++i) last(i) = (batch.states[i]->*state).data();
  token_shift(TokenShift{x, mu, out, batch.offsets, {last.data, n}, advance}, exec);
}

}  // namespace v0
}  // namespace ashlar
