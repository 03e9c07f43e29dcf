// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/llama.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

template class LlamaBlock<CpuExec>;

LlamaConfig LlamaConfig::from(const Value& config) {
  LlamaConfig c{DecoderConfig::from(config, 2048)};
  layer_types(config, c.layers, {"full_attention"}, "full_attention");
  if (const Value* window = config.find("sliding_window"); window != nullptr && !window->is_null())
    unsupported("sliding_window", concat(config.get_integer("sliding_window")), "null");
  c.mlp_bias = config.get_boolean("mlp_bias", false);
  c.rope = *rope_of(config, "full_attention", c, 10000);
  return c;
}

extern const Model model_llama;
const Model model_llama{"llama", load_llama<CpuExec>};

}  // namespace v0
}  // namespace ashlar
