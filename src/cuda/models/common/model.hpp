// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <span>

#include "ashlar/cuda/load.hpp"

namespace ashlar {
inline namespace v0 {

// What src/cuda/models/<name>.cpp says of its architecture, as the constant cuda_model_<name>.
struct CudaModel {
  std::string_view type;  // "model_type" of config.json, and others below
  std::unique_ptr<DecoderLm<CudaExec>> (*decoder_lm)(const Value& config, const Parameters&,
                                                     CudaExec&) = nullptr;
  std::array<std::string_view, 3> other_types = {};
};

std::span<const CudaModel* const> cuda_models();

}  // namespace v0
}  // namespace ashlar
