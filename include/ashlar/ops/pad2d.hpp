// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// What lies beside an image [a b c]: zero 0 0 | a b c | 0 0; reflect c b | a b c | b a, the edge not
// repeated; symmetric b a | a b c | c b.
enum class PadMode : std::uint8_t { zero, reflect, symmetric };

// out = x with pixels around it; `before` is what lies above and left of x, what lies below and right is what
// remains of out's extents. Refused: an out that is smaller than x, reflect by as much as the side or more,
// symmetric by more than the side. `out` must not overlap `x`.
template <class T>
struct Pad2dArgs {
  View<const T, 4> x;  // [N, H, W, C]
  View<T, 4> out;      // [N, H', W', C]
  PadMode mode = PadMode::zero;
  std::array<Index, 2> before{0, 0};
};
using Pad2d = Pad2dArgs<float>;

void pad2d(const Pad2d& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
