// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/rwkv.hpp"
#include "ashlar/nn/mixers/rwkv6.hpp"

namespace ashlar {
inline namespace v0 {

// RWKV-6 "Finch" (Peng et al., 2024) as flash-linear-attention writes it.
struct Rwkv6LmConfig : RwkvConfig {
  Rwkv6Config mixer;

  static Rwkv6LmConfig from(const Value& config);
};

// The time mixing's part of a configuration, or of flash-linear-attention's layer alone.
Rwkv6Config rwkv6_layer(const Value& config);

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_rwkv6(const Value& config, const Parameters& parameters, Exec& exec) {
  const Rwkv6LmConfig c = Rwkv6LmConfig::from(config);
  auto mixer = [&](Index, const ParameterReader<Exec>& r) -> std::unique_ptr<Mixer<Exec>> {
    return std::make_unique<Rwkv6<Exec>>(r, c.mixer);
  };
  return make_rwkv(c, parameters, exec, mixer);
}

}  // namespace v0
}  // namespace ashlar
