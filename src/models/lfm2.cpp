// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/lfm2.hpp"

#include <cmath>

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// "layer_types", or attention in "full_attn_idxs", or everywhere.
std::vector<std::string> types_of(const Value& config, Index layers) {
  if (given(config, "layer_types")) return layer_types(config, layers, {"conv", "full_attention"}, "");
  if (!given(config, "full_attn_idxs")) return layer_types(config, layers, {}, "full_attention");
  const Value::Array* list = config.find("full_attn_idxs")->array();
  if (list == nullptr) throw Error("InvalidConfig", "config: \"full_attn_idxs\" is not a list of layers");
  std::vector<std::string> types(static_cast<std::size_t>(layers), "conv");
  for (const Value& entry : *list) {
    const std::int64_t* layer = entry.integer();
    if (layer == nullptr || *layer < 0 || *layer >= layers)
      throw Error("InvalidConfig",
                  concat("config: \"full_attn_idxs\" holds what is not a layer from 0 to ", layers - 1));
    types[static_cast<std::size_t>(*layer)] = "full_attention";
  }
  return types;
}

// Two thirds, times a multiplier, rounded up; or as it is.
Index adjusted(const Value& config, Index width) {
  if (!config.get_boolean("block_auto_adjust_ff_dim", true)) return width;
  const Index multiple = positive(config, "block_multiple_of", 256);
  const double multiplier = config.get_number("block_ffn_dim_multiplier", 1);
  if (!(multiplier > 0) || !(multiplier < 1e6))
    throw Error("InvalidConfig", concat("config: \"block_ffn_dim_multiplier\" is ", multiplier,
                                        ", expected a positive number"));
  const Index scaled = static_cast<Index>(multiplier * static_cast<double>(2 * width / 3));
  return std::max<Index>(1, (scaled + multiple - 1) / multiple) * multiple;
}

}  // namespace

template class Lfm2Block<CpuExec>;

Lfm2Config Lfm2Config::from(const Value& config) {
  const Index width = positive(config, "block_ff_dim", positive(config, "intermediate_size", 12288));
  Lfm2Config c{DecoderConfig::from(config, 128000, width)};
  c.norm_eps = static_cast<float>(config.get_number("norm_eps", 1e-5));
  c.tied = config.get_boolean("tie_embedding", config.get_boolean("tie_word_embeddings", true));
  c.layer_types = types_of(config, c.layers);
  c.conv_width = positive(config, "conv_L_cache", 3);
  c.conv_bias = config.get_boolean("conv_bias", false);
  c.mlp_width = adjusted(config, width);
  c.rope = *rope_of(config, "full_attention", c, config.get_number("theta", 1e6));
  if (const Index dim = positive(config, "conv_dim", c.hidden_size); dim != c.hidden_size)
    unsupported("conv_dim", concat(dim), concat("\"hidden_size\", ", c.hidden_size));
  if (c.activation != Activation::silu)
    unsupported("hidden_act", config.get_string("hidden_act", ""), "silu");
  if (!config.get_boolean("block_use_swiglu", true)) unsupported("block_use_swiglu", "false", "true");
  return c;
}

extern const Model model_lfm2;
const Model model_lfm2{"lfm2", load_lfm2<CpuExec>};

}  // namespace v0
}  // namespace ashlar
