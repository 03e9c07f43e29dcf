// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/kimi_linear.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// The first of these members that is there: transformers' name, and the authors'.
Index either(const Value& config, std::string_view name, std::string_view other, Index otherwise) {
  return positive(config, given(config, name) != nullptr ? name : other, otherwise);
}

// The authors' group of settings of the linear layers; nothing where transformers has them apart.
const Value& linear_group(const Value& config) {
  static const Value nothing;
  const Value* group = given(config, "linear_attn_config");
  return group != nullptr ? *group : nothing;
}

// Marks the layers of a list that counts from 1.
void mark(const Value& group, const char* key, const std::string& type, std::vector<std::string>& types) {
  const Value* list = given(group, key);
  if (list == nullptr || list->array() == nullptr)
    throw Error("InvalidConfig", concat("config: \"", key, "\" is not a list of layers"));
  for (const Value& entry : *list->array()) {
    const std::int64_t* layer = entry.integer();
    if (layer == nullptr || *layer < 1 || *layer > static_cast<Index>(types.size()))
      throw Error("InvalidConfig",
                  concat("config: \"", key, "\" holds what is not a layer from 1 to ", types.size()));
    types[static_cast<std::size_t>(*layer) - 1] = type;
  }
}

std::vector<std::string> types_of(const Value& config, Index layers) {
  if (given(config, "layer_types") != nullptr) {
    auto types = layer_types(config, layers, {"linear_attention", "full_attention", "kda_attention"}, "");
    for (std::string& type : types)
      if (type == "kda_attention") type = "linear_attention";
    return types;
  }
  std::vector<std::string> types(static_cast<std::size_t>(layers));
  const Value& group = linear_group(config);
  if (given(group, "kda_layers") != nullptr || given(group, "full_attn_layers") != nullptr) {
    mark(group, "kda_layers", "linear_attention", types);
    mark(group, "full_attn_layers", "full_attention", types);
    for (std::size_t i = 0; i < types.size(); ++i)
      if (types[i].empty())
        throw Error("InvalidConfig", concat("config: layer ", i + 1,
                                            " is neither in \"kda_layers\" nor in \"full_attn_layers\""));
    return types;
  }
  for (std::size_t i = 0; i < types.size(); ++i)
    types[i] = (i + 1) % 4 == 0 ? "full_attention" : "linear_attention";
  return types;
}

std::vector<bool> sparse_of(const Value& config, Index layers, bool experts) {
  std::vector<bool> sparse;
  const Value* types = experts ? given(config, "mlp_layer_types") : nullptr;
  if (types != nullptr && (types->array() == nullptr || static_cast<Index>(types->array()->size()) != layers))
    throw Error("InvalidConfig", concat("config: \"mlp_layer_types\" is not a list of ", layers, " names"));
  const Index first = config.get_integer("first_k_dense_replace", 1),
              every = positive(config, "moe_layer_freq", 1);
  for (Index i = 0; i < layers; ++i) {
    if (types == nullptr) {
      sparse.push_back(experts && i >= first && i % every == 0);
      continue;
    }
    const std::string* type = (*types->array())[static_cast<std::size_t>(i)].string();
    if (type == nullptr || (*type != "dense" && *type != "sparse"))
      unsupported("mlp_layer_types", type == nullptr ? "not a name" : *type, "dense, sparse");
    sparse.push_back(*type == "sparse");
  }
  return sparse;
}

KimiDeltaAttentionConfig linear_of(const Value& config, const DecoderConfig& c) {
  const Value& group = linear_group(config);
  KimiDeltaAttentionConfig k;
  k.hidden = c.hidden_size;
  k.key_heads = k.value_heads = positive(group, "num_heads", positive(config, "linear_num_heads", 32));
  k.key_dim = k.value_dim = positive(group, "head_dim", positive(config, "linear_head_dim", 128));
  k.conv.width = positive(group, "short_conv_kernel_size", positive(config, "linear_conv_kernel_dim", 4));
  k.decay_rank = k.gate_rank = k.key_dim;  // where the file does not say
  k.norm_eps = c.norm_eps;
  for (const Value* from : {&group, &config})
    if (!k.bound && given(*from, "gate_lower_bound") != nullptr) {
      k.bound = static_cast<float>(from->get_number("gate_lower_bound"));
      if (!(*k.bound < 0) || !(*k.bound > -1e4f))
        throw Error("InvalidConfig",
                    concat("config: \"gate_lower_bound\" is ", *k.bound, ", expected a negative number"));
    }
  return k;
}

LatentAttentionConfig latent_of(const Value& config, const DecoderConfig& c) {
  LatentAttentionConfig l;  // the norms' eps is 1e-6 whatever the config says
  l.hidden = c.hidden_size, l.heads = c.heads;
  l.rank = positive(config, "kv_lora_rank", 512);
  if (given(config, "q_lora_rank") != nullptr) l.query_rank = positive(config, "q_lora_rank");
  l.nope_dim = positive(config, "qk_nope_head_dim", 128);
  l.rope_dim = config.get_integer("qk_rope_head_dim", 64) == 0 ? 0 : positive(config, "qk_rope_head_dim", 64);
  l.value_dim = positive(config, "v_head_dim", 128);
  l.biased = c.attention_bias;
  l.output_gate = config.get_boolean("mla_use_output_gate", false);
  if (!config.get_boolean("mla_use_nope", true)) unsupported("mla_use_nope", "false", "true");
  if (c.kv_heads != c.heads)
    unsupported("num_key_value_heads", concat(c.kv_heads), concat("the number of heads, ", c.heads));
  return l;
}

MoeConfig moe_of(const Value& config, const DecoderConfig& c, Index experts) {
  MoeConfig m;
  m.hidden = c.hidden_size;
  m.width = positive(config, "moe_intermediate_size", 1024);
  m.experts = experts;
  m.chosen = either(config, "num_experts_per_token", "num_experts_per_tok", 8);
  const std::string score = config.get_string("moe_router_activation_func", "sigmoid");
  if (score != "sigmoid" && score != "softmax")
    unsupported("moe_router_activation_func", score, "sigmoid, softmax");
  m.score = score == "sigmoid" ? RouterScore::sigmoid : RouterScore::softmax;
  m.selection_bias = true;
  m.renormalize = config.get_boolean("moe_renormalize", config.get_boolean("norm_topk_prob", true));
  m.scale = static_cast<float>(config.get_number("routed_scaling_factor", 2.446));
  if (config.get_boolean("use_grouped_topk", true)) {
    m.groups = either(config, "num_expert_group", "n_group", 1);
    m.chosen_groups = positive(config, "topk_group", 1);
  }
  m.activation = c.activation;
  const char* shared =
      given(config, "num_shared_experts") != nullptr ? "num_shared_experts" : "n_shared_experts";
  if (const Index count = config.get_integer(shared, 1); count != 0)
    m.shared_width = positive(config, shared, 1) * m.width;
  if (m.chosen > m.experts)
    throw Error("InvalidConfig", concat("config: \"num_experts_per_token\" is ", m.chosen,
                                        ", expected at most \"num_experts\", ", m.experts));
  if (m.experts % m.groups != 0 || m.chosen_groups > m.groups)
    throw Error("InvalidConfig", concat("config: ", m.chosen_groups, " of ", m.groups, " groups of ",
                                        m.experts, " experts, expected groups that divide them"));
  return m;
}

}  // namespace

template class KimiLinearBlock<CpuExec>;

KimiLinearConfig KimiLinearConfig::from(const Value& config) {
  KimiLinearConfig c{DecoderConfig::from(config, 1048576, 0, positive(config, "v_head_dim", 128))};
  c.max_positions = positive(config, "model_max_length", c.max_positions);
  c.norm_eps = static_cast<float>(config.get_number("rms_norm_eps", 1e-5));
  c.mlp_width = positive(config, "dense_ffn_hidden", c.intermediate_size);
  c.layer_types = types_of(config, c.layers);
  c.linear = linear_of(config, c);
  c.full_rank_gate = linear_group(config).get_boolean("use_full_rank_gate", false);
  c.latent = latent_of(config, c);
  Index experts = 256;
  for (const char* key : {"n_routed_experts", "num_local_experts", "num_experts"})
    experts = config.get_integer(key, experts);
  c.sparse = sparse_of(config, c.layers, experts != 0);
  if (experts != 0) c.moe = moe_of(config, c, experts);
  for (const char* key : {"attn_res_block_size", "routed_expert_hidden_size"})
    if (config.get_integer(key, 0) != 0) unsupported(key, concat(config.get_integer(key)), "none");
  return c;
}

extern const Model model_kimi_linear;
const Model model_kimi_linear{"kimi_linear", load_kimi_linear<CpuExec>};

}  // namespace v0
}  // namespace ashlar
