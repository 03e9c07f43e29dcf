// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

// Root-mean-square normalisation of each row x[t, h, :] (Zhang and Sennrich, 2019):
//   out = (weight_offset + weight) * x / sqrt(mean(x^2) + eps) * gate_activation(gate)
// weight_offset 1 is the zero-centred form (Gemma, Qwen3-Next). With a gate it is the gated RMS norm that
// follows linear attention (norm first, then gate; Gated DeltaNet, Yang et al., 2024). [T, D] is x.split(1,
// D). Refused: shapes that differ. `out` may be `x`. Backward needs x, weight, gate and nothing saved.
template <class T>
struct RmsNormArgs {
  View<const T, 3> x;       // [T, H, D]
  View<const T, 1> weight;  // [D], or [H * D] with heads of their own; empty: all ones
  View<T, 3> out;           // [T, H, D]
  T eps = T(1e-6);
  T weight_offset = 0;
  View<const T, 3> gate;  // [T, H, D]; empty: none
  Activation gate_activation = Activation::silu;
};
using RmsNorm = RmsNormArgs<float>;

void rms_norm(const RmsNorm& args, CpuExec& exec);

// Layer normalisation of each row x[t, h, :] (Ba, Kiros and Hinton, 2016):
//   out = (weight * (x - mean(x)) / sqrt(var(x) + eps) + bias) * gate_activation(gate),  var = mean((x -
//   mean)^2)
// With weights of their own for each head it is group normalisation over the heads (Wu and He, 2018), which
// RWKV applies to what its recurrence reads. [T, D] is x.split(1, D). Refused: shapes that differ. `out` may
// be `x`. Backward needs x, weight, gate and nothing saved.
template <class T>
struct LayerNormArgs {
  View<const T, 3> x;       // [T, H, D]
  View<const T, 1> weight;  // [D], or [H * D] with heads of their own; empty: all ones
  View<const T, 1> bias;    // as weight; empty: none
  View<T, 3> out;           // [T, H, D]
  T eps = T(1e-5);
  View<const T, 3> gate;  // [T, H, D]; empty: none
  Activation gate_activation = Activation::silu;
};
using LayerNorm = LayerNormArgs<float>;

void layer_norm(const LayerNorm& args, CpuExec& exec);

// out = x / sqrt(sum(x^2) + eps) * scale, for each row x[t, h, :]: eps is inside the root and added to the
// sum, as in flash-linear-attention. Refused: shapes that differ. `out` may be `x`.
template <class T>
struct L2NormArgs {
  View<const T, 3> x;  // [T, H, D]
  View<T, 3> out;      // [T, H, D]
  T eps = T(1e-6);
  T scale = 1;
};
using L2Norm = L2NormArgs<float>;

void l2_norm(const L2Norm& args, CpuExec& exec);

// out = x / (sum(x) + eps), for each row x[t, h, :]: features of linear attention that sum to one (Schlag et
// al., 2021). Rows are meant to be positive; one that sums to -eps is divided by 0. Refused: shapes that
// differ. `out` may be `x`.
template <class T>
struct SumNormArgs {
  View<const T, 3> x;  // [T, H, D]
  View<T, 3> out;      // [T, H, D]
  T eps = 0;
};
using SumNorm = SumNormArgs<float>;

void sum_norm(const SumNorm& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
