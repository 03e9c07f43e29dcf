// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/offsets.hpp"
#include "ashlar/nn/input_tail.hpp"
#include "ashlar/nn/kv_cache.hpp"

namespace ashlar {
inline namespace v0 {

// What one layer remembers of one sequence; a value. What its mixer has no use for stays empty.
template <class Exec>
struct LayerState {
  KvCache<Exec> kv;        // softmax attention
  InputTail<Exec> inputs;  // [W - 1, C] of short convolutions, [1, C] of a token shift
  typename Backend<Exec>::RecurrentState recurrent;  // linear recurrence
  Index substeps = 1;                                // of it
  InputTail<Exec> mlp_inputs;                        // [1, C], of an MLP that sees the token before

  // From here on up to `tokens` of the last tokens can be taken back, see RecurrentState; 0: no longer.
  void keep_updates(Index tokens) {
    if (tokens < 0 || tokens > kMostKept)
      refuse("LayerState", "tokens is ", tokens, ", expected 0 to ", kMostKept, " to keep");
    if (recurrent.heads() != 0) recurrent.keep_updates(tokens, substeps);
    kv.keep_updates(tokens), inputs.keep_updates(tokens), mlp_inputs.keep_updates(tokens);
  }
  // How many tokens can be taken back now. Keys and values can be always, but for those of a window.
  Index kept_tokens() const {
    Index kept = kv ? kv.kept_tokens() : kMostKept;
    if (recurrent.heads() != 0) kept = std::min(kept, recurrent.kept_tokens());
    for (const auto* tail : {&inputs, &mlp_inputs})
      if (*tail) kept = std::min(kept, tail->kept_tokens());
    return kept;
  }
  // Takes the last `tokens` back, exactly. Refused: more than kept_tokens().
  void rollback(Index tokens) {
    if (tokens < 0 || tokens > kept_tokens())
      refuse("LayerState", tokens, " tokens were to be taken back, expected 0 to ", kept_tokens());
    if (kv) kv.truncate(kv.length() - tokens);
    if (recurrent.heads() != 0) recurrent.rollback(tokens);
    for (auto* tail : {&inputs, &mlp_inputs})
      if (*tail) tail->rollback(tokens);
  }

  static constexpr Index kMostKept = Index{1} << 30;
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

// Where a layer keeps last inputs.
template <class Exec>
using InputsOf = InputTail<Exec> LayerState<Exec>::*;

// The batch's last inputs as the op takes them that is about to read x [T, C] into their columns [first,
// first + C), and to update them, unless `advance` is unset.
template <class Exec>
class InputTails {
 public:
  InputTails(const SequenceBatch<Exec>& batch, InputsOf<Exec> which, View<const float, 2> x, Exec& exec,
             Index first = 0, bool advance = true)
      : scratch_(exec) {
    const std::size_t n = batch.states.size();
    if (n == 0) return;
    batch.offsets.check("InputTails", x.shape[0]);
    if (static_cast<Index>(n) != batch.offsets.count())
      refuse("InputTails", n, " states were given, expected one for each of ", batch.offsets.count(),
             " sequences");
    stride_ = (batch.states[0]->*which).channels();
    for (std::size_t i = 0; i < n; ++i)
      if (const Index mine = (batch.states[i]->*which).channels();
          mine != stride_ || first + x.shape[1] > mine)
        refuse("InputTails", "state ", i, " has ", mine, " channels of last inputs, expected ",
               std::max(stride_, first + x.shape[1]));
    const auto list = scratch_.template get<float*>(n);
    for (std::size_t i = 0; i < n; ++i) {
      InputTail<Exec>& tail = batch.states[i]->*which;
      const Index sequence = static_cast<Index>(i);
      if (advance)
        tail.push(x.slice(0, batch.offsets.begin(sequence), batch.offsets.end(sequence, x.shape[0])), first);
      list(i) = tail.view().at(0, first);
    }
    states_ = {list.data, n};
  }
  operator std::span<float* const>() const { return states_; }
  Index stride() const { return stride_; }  // of their rows

 private:
  typename Backend<Exec>::HostScratch scratch_;
  std::span<float* const> states_;
  Index stride_ = 0;
};

}  // namespace v0
}  // namespace ashlar
