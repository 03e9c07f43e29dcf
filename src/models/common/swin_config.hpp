// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/swinir.hpp"
#include "src/models/common/checkpoint_shape.hpp"

namespace ashlar {
inline namespace v0 {

// Where a checkpoint shows what SwinIR and Swin2SR have in common: names below a group's blocks.
struct SwinTensors {
  std::string groups, blocks;  // "layers", "residual_group.blocks"
  std::string heads;           // its extent `heads_axis` is their number
  std::size_t heads_axis = 0;
  std::string hidden;  // the first layer of an MLP
};

// Error("UnsupportedConfig") for settings of Swin that no network here has.
void expect_swin_settings(const Value& config);

// The window (`seen`, where the checkpoint shows it) and how far images are padded. Windows are no larger
// than the images of training, and where they are clipped they are not shifted: the tables are those of the
// clipped window.
void read_swin_window(const Value& config, std::optional<Index> seen, std::optional<Index> otherwise,
                      SwinirConfig& c);

// Depths, heads, the window (`window`, where the checkpoint shows it) and its rule, the MLP's width.
void read_swin_layers(const Value& config, const CheckpointShape& shape, const SwinTensors& tensors,
                      std::optional<Index> window, std::optional<Index> default_window, SwinirConfig& c);

}  // namespace v0
}  // namespace ashlar
