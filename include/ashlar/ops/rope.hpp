// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// Which elements of a head make a rotated pair: (i, i + R) or (2 i, 2 i + 1), for i < R.
enum class RopeLayout : std::uint8_t { half_split, interleaved };

// Rotary position embedding (Su et al., 2021). With R = inverse_frequencies.shape[0] and the angle
// a = positions[t] * inverse_frequencies[i], each pair (x0, x1) of the first 2 R elements of a head becomes
//   factor * (x0 cos a - x1 sin a, x1 cos a + x0 sin a);
// the elements behind them are copied (partial rotation). Angles are formed and reduced in double; the
// cosines and sines of a token are computed once for all of its heads. Refused: shapes that differ, 2 R > D.
// `out` may be `x`. The backward is the rotation by -a.
template <class T>
struct RopeArgs {
  View<const T, 3> x;                    // [T, H, D]
  View<const Index, 1> positions;        // [T]
  View<const T, 1> inverse_frequencies;  // [R]
  View<T, 3> out;                        // [T, H, D]
  T factor = 1;
  RopeLayout layout = RopeLayout::half_split;
};
using Rope = RopeArgs<float>;

void rope(const Rope& args, CpuExec& exec);

// What a model's rotation is made of: inverse frequencies [dim / 2] and the attention factor.
struct RopeFrequencies {
  Tensor<float, 1> inverse;
  float factor = 1;
};

// theta^(-2 i / dim). All three refuse a dim that is odd or not positive, a theta that is not positive, and
// scalings that are not finite and positive.
RopeFrequencies rope_frequencies(Index dim, double theta);

// Llama 3.1: with the wavelength l = 2 pi / inv, inv is kept when l < original / high, divided by `factor`
// when l > original / low, and blended in between: with t = (original / l - low) / (high - low), (1 - t) inv
// / factor + t inv.
struct Llama3Scaling {
  double factor, low_frequency_factor, high_frequency_factor;
  Index original_positions;
};
RopeFrequencies rope_frequencies(Index dim, double theta, const Llama3Scaling& scaling);

// YaRN (Peng et al., 2023): dimensions that turn more than beta_fast times within the original context are
// kept, those that turn less than beta_slow times are divided by `factor`, a ramp in between (its ends
// rounded to whole dimensions when `truncate`); the attention factor is `attention_factor`, or 0.1 ln(factor)
// + 1 when that is 0.
struct YarnScaling {
  double factor;
  Index original_positions;
  double beta_fast = 32, beta_slow = 1, attention_factor = 0;
  bool truncate = true;
};
RopeFrequencies rope_frequencies(Index dim, double theta, const YarnScaling& scaling);

}  // namespace v0
}  // namespace ashlar
