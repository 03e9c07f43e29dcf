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
};

// Packed sequences on their way through the layers.
template <class Exec>
struct SequenceBatch {
  Offsets offsets;                 // of the sequences in the packed tokens
  View<const Index, 1> positions;  // [T], of each token in its sequence
  std::span<LayerState<Exec>* const>
      states;  // this layer's, one a sequence; empty: start afresh, keep nothing
  Phase phase = Phase::prefill;
};

}  // namespace v0
}  // namespace ashlar
