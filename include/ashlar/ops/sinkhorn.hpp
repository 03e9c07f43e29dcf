// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// Matrices made nearly doubly stochastic by Sinkhorn's iteration in the log domain (Sinkhorn, 1964; Mena et
// al., 2018): R = logits / temperature, then `iterations` times
//   R <- R - ln sum_columns e^R  (rows sum to one),  R <- R - ln sum_rows e^R  (columns do)
// and out = e^R, with a clip c > 0 out = e^clamp(R, -c, c). Refused: shapes that differ, a temperature that
// is not positive, negative iterations or clip. `out` may be `logits`. Backward needs out.
template <class T>
struct SinkhornArgs {
  View<const T, 3> logits;  // [N, A, B]
  View<T, 3> out;           // [N, A, B]
  Index iterations = 1;
  T temperature = 1;
  T clip = 0;                  // 0: none
  bool columns_first = false;  // the two halves of an iteration the other way round
};
using Sinkhorn = SinkhornArgs<float>;

void sinkhorn(const Sinkhorn& args, CpuExec& exec);

// Sums over blocks of tokens:  out[b, h, :] = sum_{i < block} x[b block + i, h, :]
// Refused: shapes that differ, tokens that are not whole blocks.
template <class T>
struct SumBlocksArgs {
  View<const T, 3> x;  // [T, H, D]
  View<T, 3> out;      // [T / block, H, D]
  Index block = 0;
};
using SumBlocks = SumBlocksArgs<float>;

void sum_blocks(const SumBlocks& args, CpuExec& exec);

// Blocks of one sequence mixed head by head (Sparse Sinkhorn Attention; Tay et al., 2020):
//   out[b block + i, h, :] = sum_l w[h, b, l] x[l block + i, h, :]
// With `separate_sums` (sum_l w[h, b, l]) (sum_l x[l block + i, h, :]): what Long Range Arena released.
// Refused: shapes that differ, tokens that are not whole blocks. `out` must not overlap `x`.
template <class T>
struct MixBlocksArgs {
  View<const T, 3> x;        // [T, H, D]
  View<const T, 3> weights;  // [H, T / block, T / block]; empty: rows sum to one, with separate sums
  View<T, 3> out;            // [T, H, D]
  Index block = 0;
  bool separate_sums = false;
};
using MixBlocks = MixBlocksArgs<float>;

void mix_blocks(const MixBlocks& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
