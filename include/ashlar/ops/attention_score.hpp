// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// What becomes of scale q_i k_j, for query i of a sequence at position p, and the key at position j:
//   s = soft_cap tanh(scale q_i k_j / soft_cap)  (Gemma 2, 2024; 0: no cap)
//     - alibi_h |p - j|                          (Press et al., 2022)
//     + relative_h[R + clamp(j - p, -R, R)]      (a table over distances; T5's buckets are one)
//     + bias[n, h, i, j]
// Axes of extent 1 of the tables are broadcast; -inf hides a key. A head's sink is the score of a key with no
// value, behind all others: the probabilities of the rest sum to less than one (gpt-oss, 2025).
template <class T>
struct AttentionScoreArgs {
  T scale = 0;                  // 0: D^-1/2
  T soft_cap = 0;               // 0: none
  View<const T, 1> alibi{};     // [H], slopes
  View<const T, 2> relative{};  // [H or 1, 2 R + 1]
  View<const T, 4> bias{};      // [N or 1, H or 1, queries or 1, keys]
  View<const T, 1> sinks{};     // [H]
};
using AttentionScore = AttentionScoreArgs<float>;

// ALiBi's slopes of `heads` heads: 2^(-8 h / H) for h = 1..H when H is a power of two, else those of the next
// smaller one and every other one of the next larger.
Tensor<float, 1> alibi_slopes(Index heads);

// The table over distances [H, 2 R + 1] of T5's buckets (Raffel et al., 2020) from weights [buckets, H]; its
// ends hold from max_distance on, so that R need not be larger. `bidirectional`: half of the buckets are for
// keys behind the query. Refused: fewer than 2 buckets (4 when bidirectional), max_distance not above the
// half of the buckets that hold one distance each.
Tensor<float, 2> t5_relative(View<const float, 2> weights, Index max_distance, bool bidirectional);

}  // namespace v0
}  // namespace ashlar
