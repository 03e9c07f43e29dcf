// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <vector>

#include "ashlar/core/value.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/rope.hpp"

namespace ashlar {
inline namespace v0 {

// What every decoder's config.json says, as Hugging Face spells it. All readers here throw
// Error("InvalidConfig") for a value that is out of range, and Error("UnsupportedConfig") for one that is
// legal but has no implementation.
struct DecoderConfig {
  Index vocab_size = 0, hidden_size = 0, intermediate_size = 0, layers = 0;
  Index heads = 0, kv_heads = 0, head_dim = 0, max_positions = 0;
  float norm_eps = 1e-6f;
  Activation activation = Activation::silu;
  bool attention_bias = false, tied = false;
  float embedding_scale = 1;  // as the embedding's type can say it
  float logit_soft_cap = 0;   // logits are c tanh(logits / c); 0: not

  // `max_positions`: the architecture's default. The others too, where it has them: else "intermediate_size"
  // is required, and "head_dim" is hidden_size / heads.
  static DecoderConfig from(const Value& config, Index max_positions, Index intermediate = 0,
                            Index head_dim = 0);
};

// Positions of a model whose parts do not count them.
inline constexpr Index kNoPositionLimit = Index{1} << 40;

// The function that transformers calls so in "hidden_act".
Activation activation_of(const std::string& name);

// The member of this name, where there is one and it is not null.
const Value* given(const Value& config, std::string_view key);

// A positive integer.
Index positive(const Value& config, std::string_view key);
Index positive(const Value& config, std::string_view key, Index otherwise);

// A finite number above 0.
double positive_number(const Value& config, std::string_view key);
double positive_number(const Value& config, std::string_view key, double otherwise);

// One entry of "layer_types" a layer, each one of `known`; `otherwise` for all layers when the config has
// none.
std::vector<std::string> layer_types(const Value& config, Index layers,
                                     std::initializer_list<const char*> known, std::string_view otherwise);

// "sliding_attention" or "full_attention" for each layer, from "layer_types"; where the config has none,
// every `period`-th layer is full.
std::vector<std::string> window_layer_types(const Value& config, Index layers, Index period);

// The language model's part of a configuration for text and images: "text_config", with what the outer one
// says of tied embeddings and quantization in front; or the configuration itself where it has none.
Value text_part(const Value& config);

// The rotation of a layer of this type, from "rope_parameters" (one for all, or one a layer type), or from
// the older top-level "rope_theta" and "rope_scaling". rope_type: default, linear, llama3, yarn. None when
// "rope_parameters" is null or has no theta, and no theta is at top level either; `theta` is then the default
// where there is one. A "partial_rotary_factor", there or at top level, rotates only that part of a head;
// `part` is the architecture's default, 0 where it must be whole heads.
std::optional<RopeFrequencies> rope_of(const Value& config, std::string_view layer_type,
                                       const DecoderConfig& c, std::optional<double> theta, double part = 0);

// The dictionary that rope_of reads has per-layer-type entries.
bool rope_is_per_layer_type(const Value& config);
// Plain rotation with the config's theta, whatever scaling it asks for.
RopeFrequencies unscaled_rope_of(const Value& config, const DecoderConfig& c, double theta);

// Error("UnsupportedConfig"): `key` is `value`, expected one of `supported`.
[[noreturn]] void unsupported(std::string_view key, std::string_view value, std::string_view supported);

}  // namespace v0
}  // namespace ashlar
