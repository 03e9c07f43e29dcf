// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/fla.hpp"
#include "ashlar/models/fla_layers.hpp"

namespace ashlar {
inline namespace v0 {

// Kimi delta attention (Kimi Team, 2025) as flash-linear-attention writes it.
template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_kda(const Value& config, const Parameters& parameters, Exec& exec) {
  const FlaConfig c = FlaConfig::from(config);
  const auto layer = kda_layer(config, FlaScope::model);
  return make_fla_lm(c, parameters, exec, [&](Index, const ParameterReader<Exec>& r, const auto&) {
    return make_mixer<KimiDeltaAttention>(r, layer);
  });
}

}  // namespace v0
}  // namespace ashlar
