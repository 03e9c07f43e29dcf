// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/fla.hpp"
#include "ashlar/models/fla_layers.hpp"

namespace ashlar {
inline namespace v0 {

// HGRN2 (Qin et al., 2024): HGRN with a matrix state.
template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_hgrn2(const Value& config, const Parameters& parameters, Exec& exec) {
  FlaConfig c = FlaConfig::from(config);
  const auto layer = hgrn2_layer(config, FlaScope::model);
  c.lower_bounds = config.get_boolean("use_lower_bound", true);
  if (c.lower_bounds && layer.keys() != c.hidden_size)
    throw Error("InvalidConfig",
                concat("config: \"expand_ratio\" makes ", layer.keys(), " channels, expected ", c.hidden_size,
                       " where \"use_lower_bound\" is set"));
  return make_fla_lm(c, parameters, exec, [&](Index, const ParameterReader<Exec>& r, const auto& bound) {
    return make_mixer<Hgrn2>(r, layer, bound);
  });
}

}  // namespace v0
}  // namespace ashlar
