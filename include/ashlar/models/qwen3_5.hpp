// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/qwen3_next.hpp"

namespace ashlar {
inline namespace v0 {

// Qwen3.5 (Qwen Team, 2026), its language model: Qwen3-Next with the linear layers' projections apart, and
// either dense or, as qwen3_5_moe, with experts in each layer. A configuration or checkpoint that has images
// too is read for its text part: "text_config", and the tensors below model.language_model. Rotation in three
// sections (mrope) is ordinary rotation for text.
struct Qwen3_5Config {
  static Qwen3NextConfig from(const Value& config);
};

DecoderNames qwen3_5_names(const Parameters& parameters);

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_qwen3_5(const Value& config, const Parameters& parameters, Exec& exec) {
  return make_qwen(Qwen3_5Config::from(config), parameters, exec, qwen3_5_names(parameters));
}

}  // namespace v0
}  // namespace ashlar
