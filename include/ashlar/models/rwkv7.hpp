// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/rwkv.hpp"
#include "ashlar/nn/mixers/rwkv7.hpp"

namespace ashlar {
inline namespace v0 {

// RWKV-7 "Goose" (Peng et al., 2025) as flash-linear-attention writes it. The values of the first layer go to
// the others through the pass's shared buffer.
struct Rwkv7LmConfig : RwkvConfig {
  Rwkv7Config mixer;

  static Rwkv7LmConfig from(const Value& config);
};

// The time mixing's part of a configuration, or of flash-linear-attention's layer alone.
Rwkv7Config rwkv7_layer(const Value& config);

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_rwkv7(const Value& config, const Parameters& parameters, Exec& exec) {
  const Rwkv7LmConfig c = Rwkv7LmConfig::from(config);
  auto mixer = [&](Index layer, const ParameterReader<Exec>& r) -> std::unique_ptr<Mixer<Exec>> {
    Rwkv7Config mine = c.mixer;
    mine.first = layer == 0;
    return std::make_unique<Rwkv7<Exec>>(r, mine);
  };
  return make_rwkv(c, parameters, exec, mixer, c.mixer.values());
}

}  // namespace v0
}  // namespace ashlar
