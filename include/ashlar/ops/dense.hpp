// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

class DenseWeight;  // core/dense_weight.hpp

// Prefill works on tiles of rows, decode reads each weight once and multiplies it with a few rows. A row's
// result does not depend on the other rows of the call within a phase; the phases may differ from each other
// in the last bits.
enum class Phase : std::uint8_t { prefill, decode };

// out = x W^T + bias, accumulated in f32: 2 M N K flops. Refused: shapes that differ. `out` must not overlap
// `x`. Backward needs x and W.
struct Dense {
  View<const float, 2> x;     // [M, K]
  const DenseWeight& weight;  // [N, K]
  View<const float, 1> bias;  // [N]; empty: none
  View<float, 2> out;         // [M, N]
  Phase phase = Phase::prefill;
  bool last = false;  // of its module: whoever waits for `out` may read it now (ResidualTarget)
};

void dense(const Dense& args, CpuExec& exec);

// Several layers in one parallel loop, such as the experts that a mixture chose: each with the bits that it
// has alone. No output overlaps another, nor any input. Refused: layers of both phases.
void dense(std::span<const Dense> layers, CpuExec& exec);

// The gated unit of an MLP (Shazeer, 2020): out = activation(x gate^T + gate_bias) (x up^T + up_bias).
// Refused: shapes that differ. `out` must not overlap `x`. Backward needs x and both products.
struct GatedDense {
  View<const float, 2> x;                   // [M, K]
  const DenseWeight &gate, &up;             // [N, K]
  View<const float, 1> gate_bias, up_bias;  // [N]; empty: none
  View<float, 2> out;                       // [M, N]
  Activation activation = Activation::silu;
  Phase phase = Phase::prefill;
};

void gated_dense(const GatedDense& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
