// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/norm.hpp"
#include "ashlar/ops/residual_add.hpp"

namespace ashlar {
inline namespace v0 {

// The usual ways in which parts f and g of a block join the residual stream h [T, D]. f(x, y) writes y [T,
// D].

// h += f(norm(h))
template <class Exec, class F>
void pre_norm(View<float, 2> h, const Norm<Exec>& norm, Exec& exec, F&& f) {
  typename Exec::Scratch scratch(exec);
  const auto x = scratch.floats(h.shape[0], h.shape[1]), y = scratch.floats(h.shape[0], h.shape[1]);
  norm(h, x, exec);
  const typename Backend<Exec>::ResidualTarget target(y, h, exec);
  f(View<const float, 2>(x), y);
  if (!target.reached()) residual_add(ResidualAdd{y, h}, exec);
}

// h += norm(f(h))
template <class Exec, class F>
void post_norm(View<float, 2> h, const Norm<Exec>& norm, Exec& exec, F&& f) {
  typename Exec::Scratch scratch(exec);
  const auto y = scratch.floats(h.shape[0], h.shape[1]);
  f(View<const float, 2>(h), y);
  norm(y, y, exec);
  residual_add(ResidualAdd{y, h}, exec);
}

// h += after(f(before(h))) (Gemma 2, 2024)
template <class Exec, class F>
void sandwich_norm(View<float, 2> h, const Norm<Exec>& before, const Norm<Exec>& after, Exec& exec, F&& f) {
  typename Exec::Scratch scratch(exec);
  const auto x = scratch.floats(h.shape[0], h.shape[1]), y = scratch.floats(h.shape[0], h.shape[1]);
  before(h, x, exec);
  f(View<const float, 2>(x), y);
  after(y, y, exec);
  residual_add(ResidualAdd{y, h}, exec);
}

// Both parts see the same x: h += f(norm(h)) + g(norm(h)) (GPT-J, Wang and Komatsuzaki, 2021)
template <class Exec, class F, class G>
void parallel(View<float, 2> h, const Norm<Exec>& norm, Exec& exec, F&& f, G&& g) {
  typename Exec::Scratch scratch(exec);
  const auto x = scratch.floats(h.shape[0], h.shape[1]), y = scratch.floats(h.shape[0], h.shape[1]);
  norm(h, x, exec);
  f(View<const float, 2>(x), y);
  residual_add(ResidualAdd{y, h}, exec);
  g(View<const float, 2>(x), y);
  residual_add(ResidualAdd{y, h}, exec);
}

}  // namespace v0
}  // namespace ashlar
