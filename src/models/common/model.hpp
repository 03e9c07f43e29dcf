// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/models/decoder_lm.hpp"

namespace ashlar {
inline namespace v0 {

// What src/models/<name>.cpp says of its architecture, as the constant model_<name>. The build gathers these
// constants from the names of the files.
struct Model {
  std::string_view type;  // "model_type" of config.json
  std::unique_ptr<DecoderLm<CpuExec>> (*decoder_lm)(const Value& config, const Parameters&,
                                                    CpuExec&) = nullptr;
};

std::span<const Model* const> models();

}  // namespace v0
}  // namespace ashlar
