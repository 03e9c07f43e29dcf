// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/rwkv.hpp"

namespace ashlar {
inline namespace v0 {

template class RwkvBlock<CpuExec>;

RwkvConfig RwkvConfig::from(const Value& config, double ratio) {
  if (const Value* q = config.find("quantization_config"); q != nullptr && !q->is_null())
    unsupported("quantization_config", q->get_string("quant_method", "quantized"),
                "none, f32, f16 or bf16 weights");
  RwkvConfig c;
  c.vocab_size = positive(config, "vocab_size");
  c.hidden_size = positive(config, "hidden_size");
  c.layers = positive(config, "num_hidden_layers");
  c.attention = HybridAttention::from(config, c.hidden_size, c.layers);
  // Nothing but a cache of keys and values has a length.
  c.max_positions = c.attention.any() ? positive(config, "max_position_embeddings", 2048) : kNoPositionLimit;
  c.norm_eps = static_cast<float>(config.get_number("norm_eps", 1e-5));
  c.tied = config.get_boolean("tie_word_embeddings", false);
  c.input_norm = config.get_boolean("norm_first", true);
  c.norm_bias = config.get_boolean("norm_bias", true);

  const double hidden_ratio = config.get_number("hidden_ratio", ratio);
  if (!(hidden_ratio > 0) || hidden_ratio > 1024)
    throw Error("InvalidConfig",
                concat("config: \"hidden_ratio\" is ", hidden_ratio, ", expected 0 to 1024"));
  // Rounded up to a multiple of 32.
  const auto wide = static_cast<Index>(static_cast<double>(c.hidden_size) * hidden_ratio);
  c.intermediate_size = positive(config, "intermediate_size", std::max<Index>(32, (wide + 31) / 32 * 32));
  c.channel_mix = {c.hidden_size, c.intermediate_size,
                   fla_activation(config.get_string("hidden_act", "sqrelu"))};
  return c;
}

}  // namespace v0
}  // namespace ashlar
