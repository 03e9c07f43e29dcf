// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/norm.hpp"
#include "ashlar/ops/residual_add.hpp"

namespace ashlar {
inline namespace v0 {

// h <- keep norm(h) + scale f(norm(h)): what goes past a part f of a block is the normed tensor too, and both
// have a weight (MiniMax-01, 2025). h [T, D]; f(x, y) writes y [T, D].
template <class Exec, class F>
void normed_residual(View<float, 2> h, const Norm<Exec>& norm, float keep, float scale, Exec& exec, F&& f) {
  typename Exec::Scratch scratch(exec);
  const auto y = scratch.floats(h.shape[0], h.shape[1]);
  norm(h, h, exec);
  f(View<const float, 2>(h), y);
  residual_add(ResidualAdd{y, h, scale, keep}, exec);
}

}  // namespace v0
}  // namespace ashlar
