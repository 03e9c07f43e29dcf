// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/qwen3_next.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr double kTheta = 10000, kRotatedPart = 0.25;

std::vector<std::string> types_of(const Value& config, Index layers) {
  if (const Value* list = config.find("layer_types"); list != nullptr && !list->is_null())
    return layer_types(config, layers, {"linear_attention", "full_attention"}, "");
  const Index interval = positive(config, "full_attention_interval", 4);
  std::vector<std::string> types;
  for (Index i = 0; i < layers; ++i)
    types.push_back((i + 1) % interval == 0 ? "full_attention" : "linear_attention");
  return types;
}

GatedDeltaNetConfig linear_of(const Value& config, const DecoderConfig& c) {
  GatedDeltaNetConfig g;
  g.hidden = c.hidden_size;
  g.key_heads = positive(config, "linear_num_key_heads", 16);
  g.value_heads = positive(config, "linear_num_value_heads", 32);
  g.key_dim = positive(config, "linear_key_head_dim", 128);
  g.value_dim = positive(config, "linear_value_head_dim", 128);
  g.conv_width = positive(config, "linear_conv_kernel_dim", 4);
  if (g.value_heads % g.key_heads != 0)
    throw Error("InvalidConfig", concat("config: \"linear_num_value_heads\" is ", g.value_heads,
                                        ", expected a multiple of \"linear_num_key_heads\", ", g.key_heads));
  return g;
}

MoeConfig moe_of(const Value& config, const DecoderConfig& c) {
  MoeConfig m;
  m.hidden = c.hidden_size;
  m.width = positive(config, "moe_intermediate_size", 512);
  m.experts = positive(config, "num_experts", 512);
  m.chosen = positive(config, "num_experts_per_tok", 10);
  m.renormalize = config.get_boolean("norm_topk_prob", true);
  m.activation = c.activation;
  m.shared_width = positive(config, "shared_expert_intermediate_size", 512);
  m.shared_gate = true;
  if (m.chosen > m.experts)
    throw Error("InvalidConfig", concat("config: \"num_experts_per_tok\" is ", m.chosen,
                                        ", expected at most \"num_experts\", ", m.experts));
  return m;
}

// Every decoder_sparse_step-th layer, those in mlp_only_layers aside.
std::vector<bool> sparse_of(const Value& config, Index layers) {
  const Index step = positive(config, "decoder_sparse_step", 1);
  std::vector<bool> sparse;
  for (Index i = 0; i < layers; ++i) sparse.push_back((i + 1) % step == 0);
  const Value* dense = config.find("mlp_only_layers");
  if (dense == nullptr || dense->is_null()) return sparse;
  if (dense->array() == nullptr)
    throw Error("InvalidConfig", "config: \"mlp_only_layers\" is not a list of layers");
  for (const Value& entry : *dense->array()) {
    const std::int64_t* layer = entry.integer();
    if (layer == nullptr)
      throw Error("InvalidConfig", "config: \"mlp_only_layers\" holds what is not a number");
    if (*layer >= 0 && *layer < layers) sparse[static_cast<std::size_t>(*layer)] = false;
  }
  return sparse;
}

}  // namespace

template class Qwen3NextBlock<CpuExec>;

Qwen3NextConfig Qwen3NextConfig::from(const Value& config) {
  const bool experts = config.get_integer("num_experts", 512) != 0;
  // Without an MLP of its own, a layer's width is an expert's.
  Qwen3NextConfig c{DecoderConfig::from(config, 32768, experts ? 5632 : 0, 256)};
  c.layer_types = types_of(config, c.layers);
  c.linear = linear_of(config, c);
  c.rope = *rope_of(config, "full_attention", c, kTheta, kRotatedPart);
  c.output_gate = config.get_boolean("attn_output_gate", true);
  if (config.get_boolean("use_sliding_window", false)) unsupported("use_sliding_window", "true", "false");
  c.sparse = std::vector<bool>(static_cast<std::size_t>(c.layers), false);
  if (experts) c.moe = moe_of(config, c), c.sparse = sparse_of(config, c.layers);
  return c;
}

std::vector<Index> rows_of_groups(Index groups, Index stride, Index begin, Index count) {
  std::vector<Index> rows;
  for (Index g = 0; g < groups; ++g)
    for (Index i = 0; i < count; ++i) rows.push_back(g * stride + begin + i);
  return rows;
}

extern const Model model_qwen3_next;
const Model model_qwen3_next{"qwen3_next", load_qwen3_next<CpuExec>};

}  // namespace v0
}  // namespace ashlar
