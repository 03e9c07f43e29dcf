// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <span>

#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/models/restoration_model.hpp"
#include "src/models/common/checkpoint_keys.hpp"

namespace ashlar {
inline namespace v0 {

// What src/models/<name>.cpp says of its architecture, as the constant model_<name>. The build gathers these
// constants from the names of the files.
struct Model {
  std::string_view type;  // "model_type" of config.json, and others below
  std::unique_ptr<DecoderLm<CpuExec>> (*decoder_lm)(const Value& config, const Parameters&,
                                                    CpuExec&) = nullptr;
  std::array<std::string_view, 3> other_types = {};
  // Of networks for images: the architecture's name, the loader of one that restores images, and the tensors
  // by which its checkpoints are recognised.
  std::string_view architecture = {};
  std::unique_ptr<RestorationModel<CpuExec>> (*restoration)(const Value& config, const Parameters&,
                                                            CpuExec&) = nullptr;
  CheckpointKeys keys = {};
};

std::span<const Model* const> models();

}  // namespace v0
}  // namespace ashlar
