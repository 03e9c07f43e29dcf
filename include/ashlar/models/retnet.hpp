// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/fla.hpp"
#include "ashlar/models/fla_layers.hpp"

namespace ashlar {
inline namespace v0 {

// RetNet (Sun et al., 2023). Its authors' code does not hand "use_short_conv" on to the layers: the
// checkpoint says whether they have convolutions.
template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_retnet(const Value& config, const Parameters& parameters, Exec& exec) {
  const FlaConfig c = FlaConfig::from(config, 24, 2);
  const RetentionConfig usual = retention_layer(config, FlaScope::model);
  return make_fla_lm(c, parameters, exec, [&](Index, const ParameterReader<Exec>& r, const auto&) {
    RetentionConfig layer = usual;
    if (!r.contains("q_conv1d.weight")) layer.conv = {};
    return make_mixer<Retention>(r, layer);
  });
}

}  // namespace v0
}  // namespace ashlar
