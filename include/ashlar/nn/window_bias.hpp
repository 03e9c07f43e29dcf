// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/parameter_reader.hpp"
#include "ashlar/ops/window_bias.hpp"

namespace ashlar {
inline namespace v0 {

// Where the position bias of window attention comes from. Each kind makes a table [rows, heads] when weights
// are loaded.
enum class PositionBias : std::uint8_t {
  none,
  table,        // a parameter (Swin)
  log_mlp,      // an MLP of logarithmic distances, through 16 sigmoid (SwinV2)
  dynamic_mlp,  // an MLP of distances with layer norms (CrossFormer, RGT)
};

// relative_position_bias_table [rows, heads].
Tensor<float, 2> learned_position_table(const ParameterLookup& r, Index rows, Index heads);

// 16 sigmoid(W_2 relu(W_1 c + b_1)) for c of log_position_coordinates: SwinV2 (Liu et al., 2022). Reads
// cpb_mlp.0.{weight [hidden, 2], bias} and cpb_mlp.2.weight [heads, hidden].
Tensor<float, 2> log_position_table(const ParameterLookup& r, std::array<Index, 2> window,
                                    std::array<Index, 2> pretrained, Index heads);

// Three stages x <- Linear(relu(LayerNorm(x))) behind x = Linear(dy, dx): the dynamic position bias of
// CrossFormer (Wang et al., 2022) without residuals, as in RGT. Reads pos.pos_proj [P, 2] and
// pos.pos<s>.{0, 2} for s = 1, 2, 3.
Tensor<float, 2> dynamic_position_table(const ParameterLookup& r, std::array<Index, 2> window, Index heads);

}  // namespace v0
}  // namespace ashlar
