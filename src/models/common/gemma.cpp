// SPDX-License-Identifier: Apache-2.0
#include "src/models/common/gemma.hpp"

#include <cmath>

namespace ashlar {
inline namespace v0 {

template class GemmaBlock<CpuExec>;

GemmaConfig gemma_config(const Value& config, Index max_positions, Index period) {
  GemmaConfig c{DecoderConfig::from(config, max_positions, 9216, 256)};
  c.activation = activation_of(config.get_string("hidden_activation", "gelu_pytorch_tanh"));
  c.tied = config.get_boolean("tie_word_embeddings", true);
  c.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(c.hidden_size)));
  c.layer_types = window_layer_types(config, c.layers, period);
  c.window = positive(config, "sliding_window", 4096);
  c.scale = static_cast<float>(1 / std::sqrt(positive_number(config, "query_pre_attn_scalar", 256)));
  if (config.get_boolean("use_bidirectional_attention", false))
    unsupported("use_bidirectional_attention", "true", "false");
  return c;
}

float soft_cap_of(const Value& config, std::string_view key, double otherwise) {
  if (const Value* cap = config.find(key); cap != nullptr && cap->is_null()) return 0;
  return static_cast<float>(config.find(key) != nullptr ? positive_number(config, key) : otherwise);
}

}  // namespace v0
}  // namespace ashlar
