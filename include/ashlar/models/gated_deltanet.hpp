// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/fla.hpp"
#include "ashlar/models/fla_layers.hpp"

namespace ashlar {
inline namespace v0 {

// Gated DeltaNet (Yang, Kautz and Hatamizadeh, 2024).
template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_gated_deltanet(const Value& config, const Parameters& parameters,
                                                     Exec& exec) {
  const FlaConfig c = FlaConfig::from(config, 21);
  const auto layer = gated_delta_net_layer(config, FlaScope::model);
  return make_fla_lm(c, parameters, exec, [&](Index, const ParameterReader<Exec>& r, const auto&) {
    return make_mixer<GatedDeltaNet>(r, layer);
  });
}

}  // namespace v0
}  // namespace ashlar
