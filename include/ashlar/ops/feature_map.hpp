// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// Feature maps of linear attention that widen a head; elementwise ones are `activate`. Both refuse shapes
// that differ, and take an `out` apart from `x`.

// The deterministic parameter-free projection of degree nu (Schlag, Irie and Schmidhuber, 2021), in
// flash-linear-attention's form: with r = [relu(x), -relu(x)] of 2 D elements,
//   out[(j - 1) 2 D + i] = r[i] r[(i - j) mod 2 D],  j = 1 ... nu.
// Refused: nu that is not 1 or more.
template <class T>
struct DpfpArgs {
  View<const T, 3> x;  // [T, H, D]
  View<T, 3> out;      // [T, H, 2 D nu]
  Index nu = 4;
};
using Dpfp = DpfpArgs<float>;

void dpfp(const Dpfp& args, CpuExec& exec);

// The Hedgehog's softmax over a head's features and their negatives (Zhang et al., 2024), on what its learned
// layer gives: out = softmax([scale x, -scale x]).
template <class T>
struct HedgehogArgs {
  View<const T, 3> x;  // [T, H, D]
  View<T, 3> out;      // [T, H, 2 D]
  T scale = 2;
};
using Hedgehog = HedgehogArgs<float>;

void hedgehog(const Hedgehog& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
