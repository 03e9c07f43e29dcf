// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/fla.hpp"
#include "ashlar/models/fla_layers.hpp"

namespace ashlar {
inline namespace v0 {

// DeltaNet (Yang et al., 2024): the delta rule without a decay.
template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_delta_net(const Value& config, const Parameters& parameters,
                                                Exec& exec) {
  const FlaConfig c = FlaConfig::from(config);
  const auto layer = delta_net_layer(config, FlaScope::model);
  return make_fla_lm(c, parameters, exec, [&](Index, const ParameterReader<Exec>& r, const auto&) {
    return make_mixer<DeltaNet>(r, layer);
  });
}

}  // namespace v0
}  // namespace ashlar
