// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <span>

#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {

// Where the sequences of a packed batch begin: N + 1 ascending positions, the first 0, the last the number of
// tokens (the field's cu_seqlens). Empty sequences are legal. Default: one sequence that is the whole axis.
class Offsets {
 public:
  Offsets() = default;
  Offsets(std::span<const Index> starts) : starts_(starts) {}
  template <class Container>
  requires requires(const Container& c) { std::span<const Index>(c); }
  Offsets(const Container& c) : starts_(c) {}

  bool single() const { return starts_.empty(); }
  Index count() const { return single() ? 1 : static_cast<Index>(starts_.size()) - 1; }
  Index begin(Index n) const { return single() ? 0 : starts_[static_cast<std::size_t>(n)]; }
  Index end(Index n, Index tokens) const {
    return single() ? tokens : starts_[static_cast<std::size_t>(n) + 1];
  }

  // Refuses offsets that do not start at 0, decrease, or do not end at `tokens`.
  void check(std::string_view op, Index tokens) const {
    if (single()) return;
    if (starts_.front() != 0) refuse(op, "offsets[0] is ", starts_.front(), ", expected 0");
    for (std::size_t i = 1; i < starts_.size(); ++i)
      if (starts_[i] < starts_[i - 1])
        refuse(op, "offsets[", i, "] is ", starts_[i], ", less than the one before it, ", starts_[i - 1]);
    if (starts_.back() != tokens)
      refuse(op, "offsets end at ", starts_.back(), ", expected ", tokens, " tokens");
  }

 private:
  std::span<const Index> starts_;
};

}  // namespace v0
}  // namespace ashlar
