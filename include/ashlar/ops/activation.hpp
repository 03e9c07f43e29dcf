// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <limits>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// identity x | silu x sigmoid(x) | sigmoid 1 / (1 + e^-x) | relu max(x, 0) | relu2 max(x, 0)^2 | tanh |
// gelu x Phi(x) | gelu_tanh x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 | softplus ln(1 + e^x) |
// elu1 elu(x) + 1 = x + 1 above 0, e^x below, linear attention's positive feature map |
// relu6 min(max(x, 0), 6) | hardsigmoid relu6(x + 3) / 6 | hardswish x relu6(x + 3) / 6 |
// leaky_relu max(x, 0) + negative_slope min(x, 0), with kNegativeSlope where an op has no other
enum class Activation : std::uint8_t {
  identity,
  silu,
  sigmoid,
  relu,
  relu2,
  tanh,
  gelu,
  gelu_tanh,
  softplus,
  elu1,
  relu6,
  hardsigmoid,
  hardswish,
  leaky_relu
};
inline constexpr float kNegativeSlope = 0.01f;

// out = scale * f(slope * x), or that times up when `up` is given: the gated linear unit of an MLP (SwiGLU,
// GeGLU; Shazeer, 2020). With a limit and an offset (the clipped unit of gpt-oss, 2025: silu, slope 1.702,
// scale 1 / slope, limit 7, offset 1)
//   out = scale * f(slope * min(x, limit)) * (min(max(up, -limit), limit) + up_offset)
// and with tanh, scale c and slope 1 / c a soft cap, c tanh(x / c) (Gemma 2, 2024). Refused: shapes that
// differ, a limit that is not positive. `out` may be `x` or `up`. Backward needs x and up.
template <class T>
struct ActivateArgs {
  View<const T, 2> x;   // [T, D]
  View<const T, 2> up;  // [T, D]; empty: none
  View<T, 2> out;       // [T, D]
  Activation activation = Activation::silu;
  T scale = 1, slope = 1;
  T limit = std::numeric_limits<T>::infinity();
  T up_offset = 0;
  T negative_slope = T(kNegativeSlope);  // of leaky_relu
};
using Activate = ActivateArgs<float>;

void activate(const Activate& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
