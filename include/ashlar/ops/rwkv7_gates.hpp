// SPDX-License-Identifier: Apache-2.0
// What RWKV-7 (Peng et al., 2025) does to each token around its recurrence. Each op is a pass over its
// arguments, refuses shapes that differ, and may write over any of its inputs of the output's shape. Backward
// needs the inputs.
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// Values drawn towards those of the first layer: out = v + sigmoid(gate) (first - v)
template <class T>
struct Rwkv7ValuesArgs {
  View<const T, 2> v, first, gate;  // [T, D]
  View<T, 2> out;                   // [T, D]
};
using Rwkv7Values = Rwkv7ValuesArgs<float>;

void rwkv7_values(const Rwkv7Values& args, CpuExec& exec);

// Keys, and the vectors of the transition diag(w) + b a^T, from the learning rate eta = sigmoid(gate) in
// context:
//   kk = k k_k / sqrt(sum((k k_k)^2) + eps);  a = -kk;  b = kk eta;  key = k (1 + (eta - 1) k_a)
template <class T>
struct Rwkv7KeysArgs {
  View<const T, 3> k, gate;   // [T, H, D]
  View<const T, 2> k_k, k_a;  // [H, D]
  View<T, 3> key, a, b;       // [T, H, D]
  T eps = T(1e-6);
};
using Rwkv7Keys = Rwkv7KeysArgs<float>;

void rwkv7_keys(const Rwkv7Keys& args, CpuExec& exec);

// The present token's own value and the gate: out = (x + (sum_d r k r_k) v) gate
template <class T>
struct Rwkv7OutputArgs {
  View<const T, 3> x;     // [T, H, Dv], what the recurrence read, normalised
  View<const T, 3> r, k;  // [T, H, D]
  View<const T, 2> r_k;   // [H, D]
  View<const T, 3> v;     // [T, H, Dv]
  View<const T, 3> gate;  // [T, H, Dv]
  View<T, 3> out;         // [T, H, Dv]
};
using Rwkv7Output = Rwkv7OutputArgs<float>;

void rwkv7_output(const Rwkv7Output& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
