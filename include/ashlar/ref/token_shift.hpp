// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "ashlar/ops/token_shift.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void token_shift(const TokenShiftArgs<T>& a) {
  const auto [ways, tokens, channels] = a.out.shape;
  for (Index n = 0; n < a.offsets.count(); ++n) {
    T* state = a.states.empty() ? nullptr : a.states[static_cast<std::size_t>(n)];
    const Index begin = a.offsets.begin(n), end = a.offsets.end(n, tokens);
    for (Index t = begin; t < end; ++t)
      for (Index c = 0; c < channels; ++c) {
        const T before = t > begin ? a.x(t - 1, c) : state ? state[c] : T(0);
        for (Index m = 0; m < ways; ++m) a.out(m, t, c) = a.x(t, c) + a.mu(m, t, c) * (before - a.x(t, c));
      }
    for (Index c = 0; c < channels && state && a.advance && end > begin; ++c) state[c] = a.x(end - 1, c);
  }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
