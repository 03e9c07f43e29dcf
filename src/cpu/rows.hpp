// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <type_traits>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"

namespace ashlar {
inline namespace v0 {

// The first sequence that ends after this token.
inline Index first_after(const Offsets& offsets, Index token, Index tokens) {
  Index n = 0, high = offsets.count() - 1;
  while (n < high) {
    const Index middle = (n + high) / 2;
    if (offsets.end(middle, tokens) > token)
      high = middle;
    else
      n = middle + 1;
  }
  return n;
}

// f(begin, end) or f(begin, end, worker) over parts of [0, rows) that are worth a worker's while: about 32
// thousand elements each, so that a single token's row stays on the calling thread.
template <class F>
void parallel_rows(CpuExec& exec, Index rows, Index elements_a_row, F&& f) {
  constexpr Index kGrain = 32768;
  const Index step = std::max<Index>(1, kGrain / std::max<Index>(1, elements_a_row));
  exec.parallel_for((rows + step - 1) / step, [&](Index part, int worker) {
    const Index begin = part * step, end = std::min(rows, (part + 1) * step);
    if constexpr (std::is_invocable_v<F&, Index, Index, int>)
      f(begin, end, worker);
    else
      f(begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
