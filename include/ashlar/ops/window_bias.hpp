// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>

#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// Position biases of window attention: a table [rows, heads] with a row for each distance of two tokens, made
// once when weights are loaded, and an index [queries, keys] into it.

// Of windows [h, w]: the row (i - i' + h - 1) (2 w - 1) + (j - j' + w - 1) for the query at (i, j) and the
// key at (i', j'), of (2 h - 1) (2 w - 1) rows (Swin: Liu et al., 2021). Refused: windows of no size.
Tensor<std::int32_t, 2> window_position_index(std::array<Index, 2> window);

// Of HAT's overlapping windows, queries [w, w] and keys [over, over] around them: the row
//   ((i' - i + w - over + 1) (w + over - 1) + (j' - j + w - over + 1)) mod (w + over - 1)^2,
// key minus query, with the remainder that is not negative: the authors' index is negative in places, and
// counts from the table's end there; `wrapped` false gives theirs.
Tensor<std::int32_t, 2> overlapping_position_index(Index window, Index over, bool wrapped = true);

// What the position network of SwinV2 sees for each row of the table of windows [h, w] (Liu et al., 2022),
// [(2 h - 1) (2 w - 1), 2]: sign(c) log2(|c| + 1) / log2(8) for c = 8 dy / (h - 1) and 8 dx / (w - 1); with
// `pretrained` windows the divisors are theirs. Refused: windows of one row or column, which would divide by
// 0.
Tensor<float, 2> log_position_coordinates(std::array<Index, 2> window,
                                          std::array<Index, 2> pretrained = {0, 0});

// The distances (dy, dx) themselves, dy slow: what a dynamic position bias sees (CrossFormer: Wang et al.,
// 2022).
Tensor<float, 2> position_offsets(std::array<Index, 2> window);

// table [rows, heads] gathered by index [queries, keys], as [heads, keys, queries]: the order that
// window_attention reads. Refused: an index outside the table.
Tensor<float, 3> gather_window_bias(View<const float, 2> table, View<const std::int32_t, 2> index);
// The view [heads, queries, keys] of it that window_attention takes.
View<const float, 3> queries_first(View<const float, 3> bias);

}  // namespace v0
}  // namespace ashlar
