// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/sequence_batch.hpp"

namespace ashlar {
inline namespace v0 {

// What mixes tokens in a layer: attention, a linear recurrence, a convolution. Modules of nn/mixers are
// mixers, so that a model's plan of layers can name any of them.
template <class Exec>
struct Mixer {
  virtual ~Mixer() = default;
  // What it remembers of a sequence of up to `capacity` tokens.
  virtual LayerState<Exec> new_state(Index capacity) const = 0;
  // x, out [T, hidden]; `out` may be `x`.
  virtual void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                          Exec& exec) const = 0;
};

}  // namespace v0
}  // namespace ashlar
