// SPDX-License-Identifier: Apache-2.0
// The language models of flash-linear-attention that are layers of {norm, mixer, norm, gated MLP}, with
// softmax attention in the layers that "attn" names.
#pragma once
#include "ashlar/models/fla_config.hpp"
#include "ashlar/models/hybrid.hpp"

namespace ashlar {
inline namespace v0 {

struct FlaConfig : DecoderConfig {
  HybridAttention attention;
  bool lower_bounds = false;  // HGRN's, of every layer

  // `layers` and `hidden_ratio`: the model's defaults. The mixer's own settings are its own to read.
  static FlaConfig from(const Value& config, Index layers = 24, double hidden_ratio = 4);
};

// "model.lower_bounds" [L, hidden] as HGRN uses it: with p the softmax over layers, row l is p_1 + ... + p_l.
Tensor<float, 2> read_lower_bounds(const ParameterLookup& r, Index layers, Index hidden);

// mixer(layer, reader of "model.layers.<layer>.attn.", the layer's lower bound) is what mixes the tokens of
// the layers without attention; the bound is empty where there is none, and in layer 0, where it is 0.
template <class Exec, class MakeMixer>
std::unique_ptr<DecoderLm<Exec>> make_fla_lm(const FlaConfig& c, const Parameters& parameters, Exec& exec,
                                             MakeMixer&& mixer) {
  using Vector = typename Backend<Exec>::Vector;
  HybridNames names;
  names.embedding = "model.embeddings.weight";
  Tensor<float, 2> bounds;
  auto bound = [&](Index layer) {
    if (layer == 0 || !bounds) return Vector();
    Tensor<float, 1> row({c.hidden_size});
    std::copy_n(bounds.view().at(layer), c.hidden_size, row.data());
    return Backend<Exec>::vector(std::move(row), exec);
  };
  auto any = [&](Index layer, const ParameterReader<Exec>& r) -> MixerPtr<Exec> {
    return c.attention.has(layer) ? c.attention.make(layer, r) : mixer(layer, r, bound(layer));
  };
  return make_hybrid_lm(c, parameters, exec, names, any, [&](const ParameterReader<Exec>& r) {
    if (c.lower_bounds) bounds = read_lower_bounds(r, c.layers, c.hidden_size);
  });
}

}  // namespace v0
}  // namespace ashlar
