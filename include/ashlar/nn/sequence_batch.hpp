// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/offsets.hpp"
#include "ashlar/nn/kv_cache.hpp"

namespace ashlar {
inline namespace v0 {

// What one layer remembers of one sequence; a value. What its mixer has no use for stays empty.
template <class Exec>
struct LayerState {
  KvCache<Exec> kv;                                         // softmax attention
  typename Backend<Exec>::template Array<float, 2> inputs;  // [W - 1, C], a short convolution's last inputs
  typename Backend<Exec>::RecurrentState recurrent;         // linear recurrence
  typename Backend<Exec>::template Array<float, 2>
      mlp_inputs;  // [1, C], of an MLP that sees the token before
};

// Packed sequences on their way through the layers.
template <class Exec>
struct SequenceBatch {
  Offsets offsets;                 // of the sequences in the packed tokens
  View<const Index, 1> positions;  // [T], of each token in its sequence
  std::span<LayerState<Exec>* const>
      states;  // this layer's, one a sequence; empty: start afresh, keep nothing
  Phase phase = Phase::prefill;
  View<float, 2> shared;  // [T, shared_width], what layers of one pass hand to later ones; empty: nothing
};

// The batch's recurrent states as the op takes them.
template <class Exec>
class RecurrentStates {
 public:
  using State = typename Backend<Exec>::RecurrentState;

  RecurrentStates(const SequenceBatch<Exec>& batch, Exec& exec) : scratch_(exec) {
    const std::size_t n = batch.states.size();
    if (n == 0) return;
    const auto list = scratch_.template get<State*>(n);
    for (std::size_t i = 0; i < n; ++i) list(i) = &batch.states[i]->recurrent;
    states_ = {list.data, n};
  }
  operator std::span<State* const>() const { return states_; }

 private:
  typename Backend<Exec>::HostScratch scratch_;
  std::span<State* const> states_;
};

}  // namespace v0
}  // namespace ashlar
