// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/olmo3.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

template class Olmo3Block<CpuExec>;

Olmo3Config Olmo3Config::from(const Value& config) {
  constexpr double kTheta = 10000;
  Olmo3Config c{DecoderConfig::from(config, 2048)};
  c.layer_types = window_layer_types(config, c.layers, 4);
  c.window = positive(config, "sliding_window", 4096);
  c.full_rope = *rope_of(config, "full_attention", c, kTheta);
  // One dictionary for all layers is scaling for the full ones.
  c.sliding_rope = rope_is_per_layer_type(config) ? *rope_of(config, "sliding_attention", c, kTheta)
                                                  : unscaled_rope_of(config, c, kTheta);
  return c;
}

extern const Model model_olmo3;
const Model model_olmo3{"olmo3", load_olmo3<CpuExec>};

}  // namespace v0
}  // namespace ashlar
