// SPDX-License-Identifier: Apache-2.0
// Small language models with random weights, one an architecture, for properties that must hold in each.
#pragma once
#include <map>
#include <numeric>

#include "ashlar/io/json.hpp"
#include "ashlar/models/load.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "tests/support.hpp"

namespace ashlar::test {

using Model = DecoderLm<CpuExec>;
using Cache = Model::Cache;
using Ids = std::vector<std::int32_t>;

struct Architecture {
  const char* name;
  const char* config;
};
inline void PrintTo(const Architecture& a, std::ostream* out) { *out << a.name; }

inline constexpr Architecture kLlama{"llama", R"({"model_type": "llama", "vocab_size": 61, "hidden_size": 40,
  "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
  "head_dim": 6, "attention_bias": true, "mlp_bias": true, "max_position_embeddings": 64,
  "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
  "high_freq_factor": 4.0, "original_max_position_embeddings": 32}, "tie_word_embeddings": true})"};
inline constexpr Architecture kOlmo3{"olmo3", R"({"model_type": "olmo3", "vocab_size": 67, "hidden_size": 48,
  "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
  "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 5,
  "max_position_embeddings": 64, "rope_parameters": {
  "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
  "full_attention": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                     "original_max_position_embeddings": 16}}})"};
// More positions than a ring of 64 rows.
inline constexpr Architecture kOlmo3Long{"olmo3_long",
                                         R"({"model_type": "olmo3", "vocab_size": 67, "hidden_size": 48,
  "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
  "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 5,
  "max_position_embeddings": 300, "rope_parameters": {
  "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
  "full_attention": {"rope_type": "default", "rope_theta": 10000.0}}})"};
inline constexpr Architecture kOlmoHybrid{
    "olmo_hybrid", R"({"model_type": "olmo_hybrid", "vocab_size": 53, "hidden_size": 36,
  "intermediate_size": 56, "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 3,
  "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
  "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 7, "linear_value_head_dim": 10,
  "linear_conv_kernel_dim": 3, "linear_allow_neg_eigval": true, "max_position_embeddings": 64,
  "rope_parameters": null})"};

inline constexpr Architecture kQwen3Next{"qwen3_next",
                                         R"({"model_type": "qwen3_next", "vocab_size": 59, "hidden_size": 28,
  "intermediate_size": 44, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 12, "partial_rotary_factor": 0.5, "linear_num_key_heads": 2, "linear_num_value_heads": 6,
  "linear_key_head_dim": 7, "linear_value_head_dim": 10, "linear_conv_kernel_dim": 3, "num_experts": 6,
  "num_experts_per_tok": 3, "moe_intermediate_size": 18, "shared_expert_intermediate_size": 13,
  "mlp_only_layers": [1], "max_position_embeddings": 64})"};
inline constexpr Architecture kQwen3_5{"qwen3_5",
                                       R"({"model_type": "qwen3_5_text", "vocab_size": 59, "hidden_size": 28,
  "intermediate_size": 44, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
  "linear_value_head_dim": 9, "max_position_embeddings": 64, "rope_parameters": {"rope_theta": 1e7,
  "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 1], "mrope_interleaved": true}})"};
inline constexpr Architecture kQwen3_5Moe{
    "qwen3_5_moe", R"({"model_type": "qwen3_5_moe_text", "vocab_size": 59, "hidden_size": 28,
  "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
  "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
  "linear_value_head_dim": 9, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 18,
  "shared_expert_intermediate_size": 13, "max_position_embeddings": 64})"};
inline constexpr Architecture kLfm2{"lfm2", R"({"model_type": "lfm2", "vocab_size": 57, "hidden_size": 30,
  "intermediate_size": 66, "block_multiple_of": 8, "num_hidden_layers": 3, "num_attention_heads": 5,
  "num_key_value_heads": 1, "layer_types": ["conv", "full_attention", "conv"], "conv_L_cache": 4,
  "conv_bias": true, "max_position_embeddings": 64})"};
inline constexpr Architecture kMiniMax{"minimax", R"({"model_type": "minimax", "vocab_size": 51,
  "hidden_size": 30, "intermediate_size": 22, "num_hidden_layers": 4, "num_attention_heads": 3,
  "num_key_value_heads": 1, "head_dim": 8, "num_local_experts": 5, "num_experts_per_tok": 2,
  "full_attn_alpha_factor": 1.5, "full_attn_beta_factor": 0.75, "linear_attn_alpha_factor": 1.25,
  "linear_attn_beta_factor": 0.8, "mlp_alpha_factor": 1.1, "mlp_beta_factor": 0.9, "sliding_window": 6,
  "max_position_embeddings": 64})"};
inline constexpr Architecture kGemma2{"gemma2", R"({"model_type": "gemma2", "vocab_size": 61,
  "hidden_size": 36, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 2, "head_dim": 10, "sliding_window": 5, "query_pre_attn_scalar": 7.5,
  "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.5, "attention_bias": true,
  "max_position_embeddings": 64})"};
inline constexpr Architecture kGemma3{"gemma3", R"({"model_type": "gemma3_text", "vocab_size": 57,
  "hidden_size": 49, "intermediate_size": 52, "num_hidden_layers": 4, "num_attention_heads": 5,
  "num_key_value_heads": 1, "head_dim": 6, "sliding_window": 4, "sliding_window_pattern": 3,
  "query_pre_attn_scalar": 11, "rope_theta": 2e5, "rope_local_base_freq": 700,
  "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "final_logit_softcapping": 9,
  "max_position_embeddings": 64})"};
inline constexpr Architecture kGptOss{"gpt_oss", R"({"model_type": "gpt_oss", "vocab_size": 59,
  "hidden_size": 30, "intermediate_size": 14, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 3, "head_dim": 8, "num_local_experts": 5, "num_experts_per_tok": 2,
  "sliding_window": 5, "swiglu_limit": 0.75, "max_position_embeddings": 64, "rope_scaling":
  {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "truncate": false}})"};

inline constexpr Architecture kKimiLinear{"kimi_linear", R"({"model_type": "kimi_linear", "vocab_size": 47,
  "hidden_size": 26, "intermediate_size": 38, "num_hidden_layers": 4, "num_attention_heads": 3,
  "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
  "mlp_layer_types": ["dense", "sparse", "sparse", "dense"], "linear_num_heads": 2, "linear_head_dim": 7,
  "linear_conv_kernel_dim": 3, "q_lora_rank": 11, "kv_lora_rank": 9, "qk_nope_head_dim": 6,
  "qk_rope_head_dim": 4, "v_head_dim": 5, "num_experts": 6, "num_experts_per_token": 2,
  "num_expert_group": 3, "topk_group": 2, "moe_intermediate_size": 15, "num_shared_experts": 2,
  "routed_scaling_factor": 2.5, "model_max_length": 64})"};
inline constexpr Architecture kMamba2{"mamba2",
                                      R"({"model_type": "mamba2", "vocab_size": 53, "hidden_size": 28,
  "num_hidden_layers": 2, "state_size": 11, "head_dim": 7, "num_heads": 8, "expand": 2, "n_groups": 2,
  "conv_kernel": 3, "layer_norm_epsilon": 1e-5, "time_step_limit": [0.001, 0.5], "use_bias": true,
  "tie_word_embeddings": true})"};
inline constexpr Architecture kFlaMamba2{"fla_mamba2", R"({"model_type": "mamba2", "vocab_size": 59,
  "hidden_size": 24, "num_hidden_layers": 2, "state_size": 5, "head_dim": 9, "expand": 3, "n_groups": 4,
  "conv_kernel": 4, "norm_eps": 1e-6, "dt_limit": [0, 2.5], "norm_before_gate": true, "D_has_hdim": true,
  "use_conv_bias": false})"};
inline constexpr Architecture kRwkv6{"rwkv6", R"({"model_type": "rwkv6", "vocab_size": 61, "hidden_size": 30,
  "num_hidden_layers": 3, "num_heads": 3, "expand_k": 0.7, "expand_v": 1.2, "proj_low_rank_dim": 3,
  "gate_low_rank_dim": 5, "hidden_ratio": 2.5, "hidden_act": "sqrelu"})"};
inline constexpr Architecture kRwkv6Hybrid{"rwkv6_hybrid", R"({"model_type": "rwkv6", "vocab_size": 61,
  "hidden_size": 24, "num_hidden_layers": 4, "num_heads": 3, "proj_low_rank_dim": 3, "gate_low_rank_dim": 5,
  "max_position_embeddings": 64, "attn": [{"layers": [2], "num_heads": 4, "num_kv_heads": 2, "qkv_bias": true,
  "window_size": 5, "rope_theta": 500.0}, {"layers": [1], "num_heads": 2}]})"};
inline constexpr Architecture kRwkv7{"rwkv7", R"({"model_type": "rwkv7", "vocab_size": 57, "hidden_size": 30,
  "num_hidden_layers": 3, "head_dim": 6, "value_dim": [60, 60, 60], "decay_low_rank_dim": 3,
  "gate_low_rank_dim": 4, "a_low_rank_dim": 2, "v_low_rank_dim": 5, "norm_bias": false, "norm_first": false,
  "fuse_norm": false})"};
inline constexpr Architecture kDeltaNet{"delta_net", R"({"model_type": "delta_net", "vocab_size": 59,
  "hidden_size": 30, "intermediate_size": 44, "num_hidden_layers": 3, "num_heads": 3, "expand_k": 0.6,
  "expand_v": 1.2, "conv_size": 3, "use_gate": true, "allow_neg_eigval": true, "max_position_embeddings": 64,
  "attn": {"layers": [1], "num_heads": 5, "num_kv_heads": 1, "window_size": 4, "qkv_bias": true}})"};
inline constexpr Architecture kDeltaNetSum{"delta_net_sum", R"({"model_type": "delta_net", "vocab_size": 59,
  "hidden_size": 24, "num_hidden_layers": 2, "num_heads": 2, "use_short_conv": false, "qk_activation": "elu",
  "qk_norm": "sum", "use_beta": false, "hidden_ratio": 1, "tie_word_embeddings": true})"};
inline constexpr Architecture kGatedDeltaNet{"gated_deltanet", R"({"model_type": "gated_deltanet",
  "vocab_size": 61, "hidden_size": 28, "intermediate_size": 40, "num_hidden_layers": 4, "num_heads": 2,
  "num_v_heads": 4, "head_dim": 6, "expand_v": 1.5, "max_position_embeddings": 64,
  "attn": {"layers": [3], "num_heads": 2, "rope_theta": 500.0}})"};
inline constexpr Architecture kGatedDeltaNetBare{"gated_deltanet_bare", R"({"model_type": "gated_deltanet",
  "vocab_size": 61, "hidden_size": 28, "intermediate_size": 40, "num_hidden_layers": 2, "num_heads": 3,
  "head_dim": 5, "expand_v": 1, "use_gate": false, "use_short_conv": false, "allow_neg_eigval": true})"};
inline constexpr Architecture kGatedDeltaProduct{"gated_deltaproduct", R"({"model_type": "gated_deltaproduct",
  "vocab_size": 53, "hidden_size": 26, "intermediate_size": 36, "num_hidden_layers": 2, "num_heads": 2,
  "head_dim": 7, "expand_v": 2, "num_householder": 3, "use_forget_gate": true, "allow_neg_eigval": true})"};
inline constexpr Architecture kGla{"gla", R"({"model_type": "gla", "vocab_size": 67, "hidden_size": 36,
  "intermediate_size": 52, "num_hidden_layers": 3, "num_heads": 6, "num_kv_heads": 2, "expand_k": 1,
  "feature_map": "relu", "use_short_conv": true, "conv_size": 2, "clamp_min": -0.03,
  "max_position_embeddings": 64, "attn": [{"layers": [0], "num_heads": 3, "window_size": 6},
  {"layers": [2], "num_heads": 2}]})"};
inline constexpr Architecture kKda{"kda", R"({"model_type": "kda", "vocab_size": 59, "hidden_size": 20,
  "intermediate_size": 28, "num_hidden_layers": 2, "num_heads": 2, "num_v_heads": 4, "head_dim": 6,
  "expand_v": 1.5, "safe_gate": true, "lower_bound": -5.0, "allow_neg_eigval": true})"};
inline constexpr Architecture kHgrn{"hgrn", R"({"model_type": "hgrn", "vocab_size": 55, "hidden_size": 34,
  "intermediate_size": 48, "num_hidden_layers": 3, "use_short_conv": true, "max_position_embeddings": 64,
  "attn": {"layers": [1], "num_heads": 1}})"};
inline constexpr Architecture kHgrn2{"hgrn2", R"({"model_type": "hgrn2", "vocab_size": 55, "hidden_size": 30,
  "intermediate_size": 48, "num_hidden_layers": 3, "expand_ratio": 10, "use_short_conv": true,
  "conv_size": 3})"};
inline constexpr Architecture kRetNet{"retnet", R"({"model_type": "retnet", "vocab_size": 63,
  "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "num_kv_heads": 2, "expand_v": 1.5,
  "intermediate_size": 40, "elementwise_affine": false, "use_output_gate": false})"};

// Every fourth layer is attention with its norms behind the parts.
inline bool olmo_hybrid_present(std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  const bool attention = name.starts_with(kLayers) && std::atoi(name.data() + kLayers.size()) % 4 == 3;
  if (name.ends_with("post_feedforward_layernorm.weight")) return attention;
  if (name.ends_with("input_layernorm.weight")) return !attention;
  return !name.ends_with("attention_layer_norm.weight") && !name.ends_with(".bias");
}

// Experts have tensors of their own.
inline bool each_expert_present(std::string_view name) {
  return !name.ends_with("experts.gate_up_proj") && !name.ends_with(".bias");
}

// The router is called so, and everything has a bias.
inline bool gpt_oss_present(std::string_view name) { return name.find(".gate.") == std::string_view::npos; }

inline const std::function<bool(std::string_view)>& present_in(const Architecture& a) {
  static const std::function<bool(std::string_view)> usual,
      hybrid = olmo_hybrid_present, sparse = each_expert_present, biased = gpt_oss_present;
  const std::string_view name = a.name;
  return name == "olmo_hybrid"                                                ? hybrid
         : name == "gpt_oss"                                                  ? biased
         : name == "qwen3_next" || name == "minimax" || name == "kimi_linear" ? sparse
                                                                              : usual;
}

// Weights that a model asked for, kept, so that they can be renamed, cut and taken away.
class KeptParameters : public Parameters {
 public:
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, p] : tensors) names.push_back(name);
    return names;
  }
  bool find(std::string_view name, Parameter* into) const override {
    const auto at = tensors.find(std::string(name));
    if (at == tensors.end()) return false;
    if (into != nullptr) *into = at->second;
    return true;
  }
  std::map<std::string, Parameter> tensors;
};

// Norms of qwen3_next and qwen3_5 add one to their weights, but for the one behind the recurrence. Random
// weights lie around one: there they are taken around zero, so that these norms do what others do.
class ModelParameters : public RandomParameters {
 public:
  ModelParameters(const Architecture& a, DType dtype)
      : RandomParameters(dtype, 7, present_in(a)),
        zero_centred_(std::string_view(a.name).starts_with("qwen3_")) {}
  Parameter make(std::string_view name, std::span<const Index> shape) const override {
    const Parameter p = RandomParameters::make(name, shape);
    if (!zero_centred_ || !name.ends_with("norm.weight") || name.ends_with("linear_attn.norm.weight"))
      return p;
    auto less = std::make_shared<Tensor<float, 1>>(to_floats(p));
    for (Index i = 0; i < less->size(); ++i) less->data()[i] -= 1;
    return {less->data(), DType::f32, p.shape, less};
  }

 private:
  bool zero_centred_;
};

class Recorder : public ModelParameters {
 public:
  using ModelParameters::ModelParameters;
  Parameter make(std::string_view name, std::span<const Index> shape) const override {
    return kept.tensors[std::string(name)] = ModelParameters::make(name, shape);
  }
  mutable KeptParameters kept;
};

inline std::unique_ptr<Model> random_model(const Architecture& a, CpuExec& exec, DType dtype = DType::f32) {
  return load_decoder_lm(parse_json(a.config, "config"), ModelParameters(a, dtype), exec);
}
// The tensors of random_model.
inline KeptParameters random_checkpoint(const Architecture& a) {
  const Recorder recorder(a, DType::f32);
  CpuExec exec;
  load_decoder_lm(parse_json(a.config, "config"), recorder, exec);
  return recorder.kept;
}
inline std::string name_of(const testing::TestParamInfo<Architecture>& info) { return info.param.name; }

inline Ids random_ids(const Model& model, Index n, unsigned seed) {
  std::mt19937 rng(seed);
  Ids ids(static_cast<std::size_t>(n));
  for (auto& id : ids) id = static_cast<std::int32_t>(rng() % static_cast<unsigned>(model.vocab_size()));
  return ids;
}

using Logits = std::vector<float>;

// Every token's logits without a cache, [T, V].
inline Logits full_forward(const Model& model, const Ids& ids, CpuExec& exec) {
  Logits logits(ids.size() * static_cast<std::size_t>(model.vocab_size()), NAN);
  model.prefill(ids, {}, {}, {logits.data(), {static_cast<Index>(ids.size()), model.vocab_size()}}, exec);
  return logits;
}
// One sequence's last logits, [V].
inline Logits prefill(const Model& model, std::span<const std::int32_t> ids, Cache& cache, CpuExec& exec) {
  Logits logits(static_cast<std::size_t>(model.vocab_size()), NAN);
  Cache* const caches[] = {&cache};
  model.prefill(ids, {}, caches, {logits.data(), {1, model.vocab_size()}}, exec);
  return logits;
}
inline Logits decode(const Model& model, std::int32_t id, Cache& cache, CpuExec& exec) {
  Logits logits(static_cast<std::size_t>(model.vocab_size()), NAN);
  Cache* const caches[] = {&cache};
  model.decode(std::span(&id, 1), caches, {logits.data(), {1, model.vocab_size()}}, exec);
  return logits;
}

inline double largest(const Logits& x) {
  double most = 0;
  for (float e : x) most = std::max(most, std::abs(static_cast<double>(e)));
  return most;
}
// max |got - want| / max |want|; infinite for a NaN.
inline double error(std::span<const float> got, std::span<const float> want) {
  double worst = 0, most = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
    most = std::max(most, std::abs(static_cast<double>(want[i])));
  }
  return worst / most;
}

}  // namespace ashlar::test
