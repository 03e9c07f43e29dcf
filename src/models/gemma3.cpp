// SPDX-License-Identifier: Apache-2.0
#include "src/models/common/gemma.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// What a text part leaves out where it is as in the smallest model.
Value with_defaults(Value config) {
  if (config.object() == nullptr) return config;
  Value::Object members = *config.object();
  for (const auto& [key, value] : {std::pair<const char*, std::int64_t>{"vocab_size", 262208},
                                   {"hidden_size", 2304},
                                   {"num_hidden_layers", 26},
                                   {"num_attention_heads", 8},
                                   {"num_key_value_heads", 4}})
    if (config.find(key) == nullptr) members.emplace_back(key, value);
  return members;
}

}  // namespace

GemmaConfig Gemma3Config::from(const Value& whole) {
  constexpr double kTheta = 1e6, kSlidingTheta = 10000;
  const Value config = given(whole, "text_config") ? with_defaults(text_part(whole)) : whole;
  const Index period =
      positive(config, "sliding_window_pattern", positive(config, "_sliding_window_pattern", 6));
  GemmaConfig c = gemma_config(config, 131072, period);
  c.qk_norm = QkNorm::head;
  c.full_rope = *rope_of(config, "full_attention", c, kTheta);
  if (!given(config, "rope_parameters")) {
    // "rope_theta" and "rope_scaling" are of the full layers.
    c.sliding_rope =
        rope_frequencies(c.head_dim, positive_number(config, "rope_local_base_freq", kSlidingTheta));
  } else if (rope_is_per_layer_type(config)) {
    c.sliding_rope = *rope_of(config, "sliding_attention", c, kSlidingTheta);
  } else {
    throw Error(
        "InvalidConfig",
        "config: \"rope_parameters\" is one dictionary, expected one for \"sliding_attention\" and one "
        "for \"full_attention\"");
  }
  c.logit_soft_cap = soft_cap_of(config, "final_logit_softcapping", 0);
  return c;
}

DecoderNames gemma3_names(const Parameters& parameters) {
  DecoderNames names;
  for (const std::string inner : {"model.language_model.", "language_model.model."})
    if (!parameters.contains(names.embedding.spellings.front()) &&
        parameters.contains(inner + "embed_tokens.weight")) {
      names.embedding = inner + "embed_tokens.weight";
      names.norm = inner + "norm.weight";
      names.layers = inner + "layers";
    }
  names.head = {"lm_head.weight", "language_model.lm_head.weight"};
  names.ignored = [](std::string_view name) {
    for (std::string_view images : {"vision_tower.", "multi_modal_projector."})
      if (name.starts_with(images) || name.starts_with(concat("model.", images))) return true;
    return false;
  };
  return names;
}

extern const Model model_gemma3;
const Model model_gemma3{"gemma3", load_gemma3<CpuExec>, {"gemma3_text"}};

}  // namespace v0
}  // namespace ashlar
