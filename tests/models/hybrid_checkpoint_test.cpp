// SPDX-License-Identifier: Apache-2.0
// The spellings of the hybrids' checkpoints and configurations that must give the same model.
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

Logits logits_of(const char* config, const Parameters& parameters) {
  CpuExec exec;
  const auto model = load_decoder_lm(parse_json(config, "config"), parameters, exec);
  return full_forward(*model, random_ids(*model, 9, 1), exec);
}
// With `from` in a name replaced by `to`, where it is.
KeptParameters renamed(const KeptParameters& p, const std::string& from, const std::string& to) {
  KeptParameters other;
  for (const auto& [name, tensor] : p.tensors) {
    std::string changed = name;
    if (const auto at = changed.find(from); at != std::string::npos) changed.replace(at, from.size(), to);
    other.tensors[changed] = tensor;
  }
  return other;
}
// One tensor of the concatenated values.
Parameter joined(std::span<const Parameter> parts, std::vector<Index> shape) {
  Index size = 0;
  for (const Parameter& p : parts) size += p.size();
  auto all = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{size});
  float* to = all->data();
  for (const Parameter& p : parts) to = std::copy_n(static_cast<const float*>(p.data), p.size(), to);
  return {all->data(), DType::f32, std::move(shape), all};
}
KeptParameters without(KeptParameters p, const std::string& part) {
  std::erase_if(p.tensors, [&](const auto& entry) { return entry.first.find(part) != std::string::npos; });
  return p;
}

TEST(HybridCheckpoint, ExpertsMayBeFused) {
  const KeptParameters usual = random_checkpoint(kQwen3Next);
  KeptParameters fused = without(usual, ".experts.");
  for (int layer : {0, 2, 3}) {
    const std::string experts = concat("model.layers.", layer, ".mlp.experts.");
    std::vector<Parameter> both, down;
    for (Index e = 0; e < 6; ++e) {
      for (const char* part : {".gate_proj.weight", ".up_proj.weight"})
        both.push_back(usual.at(concat(experts, e, part)));
      down.push_back(usual.at(concat(experts, e, ".down_proj.weight")));
    }
    fused.tensors[experts + "gate_up_proj"] = joined(both, {6, 36, 28});
    fused.tensors[experts + "down_proj"] = joined(down, {6, 28, 18});
  }
  const Logits want = logits_of(kQwen3Next.config, usual);
  // gate and up are one product then, which Eigen (not oneDNN) sums in another order: within the roundings of
  // the 28 channels through 4 layers of norms.
  EXPECT_LE(error(logits_of(kQwen3Next.config, fused), want), 4 * 28 * kEps);
  // Mixtral's names.
  KeptParameters numbered = usual;
  for (const auto& [from, to] : {std::pair("gate_proj", "w1"), {"up_proj", "w3"}, {"down_proj", "w2"}}) {
    KeptParameters next;
    for (const auto& [name, p] : numbered.tensors) {
      std::string changed = name;
      if (const auto at = changed.find(from);
          at != std::string::npos && name.find(".experts.") != std::string::npos)
        changed.replace(at, std::string_view(from).size(), to);
      next.tensors[changed] = p;
    }
    numbered = next;
  }
  EXPECT_EQ(logits_of(kQwen3Next.config, numbered), want);
}

// Rows [begin, begin + count) of each group of `stride` rows, one group after another.
Parameter rows_of(const Parameter& p, Index groups, Index stride, Index begin, Index count) {
  std::vector<Index> rows;
  for (Index g = 0; g < groups; ++g)
    for (Index i = 0; i < count; ++i) rows.push_back(g * stride + begin + i);
  return take(p, rows);
}

TEST(HybridCheckpoint, QwensTwoOrdersOfLinearProjectionsAreTheSame) {
  // Dense, so that both architectures have the same layers: 2 key heads, 6 value heads, K 7, V 10.
  const std::string config(kQwen3Next.config);
  std::string next = config, separate = config;
  next.replace(next.find("\"num_experts\": 6"), 16, "\"num_experts\": 0");
  separate.replace(separate.find("qwen3_next"), 10, "qwen3_5_text");
  const Architecture a{"qwen3_next", next.c_str()};
  const KeptParameters usual = random_checkpoint(a);
  KeptParameters apart = without(usual, ".in_proj_");
  for (int layer : {0, 1, 2}) {
    const std::string in = concat("model.layers.", layer, ".linear_attn.in_proj_");
    const Parameter qkvz = usual.at(in + "qkvz.weight"), ba = usual.at(in + "ba.weight");
    const Index stride = 2 * 7 + 2 * 3 * 10;
    const Parameter qkv[] = {rows_of(qkvz, 2, stride, 0, 7), rows_of(qkvz, 2, stride, 7, 7),
                             rows_of(qkvz, 2, stride, 14, 30)};
    apart.tensors[in + "qkv.weight"] = joined(qkv, {28 + 60, 28});
    apart.tensors[in + "z.weight"] = rows_of(qkvz, 2, stride, 44, 30);
    apart.tensors[in + "b.weight"] = rows_of(ba, 2, 6, 0, 3);
    apart.tensors[in + "a.weight"] = rows_of(ba, 2, 6, 3, 3);
  }
  const std::string mixed = "\"mlp_only_layers\": [1], ";
  std::string dense = separate;
  dense.erase(dense.find(mixed), mixed.size());
  EXPECT_EQ(logits_of(dense.c_str(), apart), logits_of(next.c_str(), usual));
  EXPECT_EQ(refusal([&] { logits_of(separate.c_str(), apart); }),
            "config: \"mlp_only_layers\" is \"set\", which is not supported; supported: every layer alike");
}

TEST(HybridCheckpoint, AQwenThatAlsoSeesIsReadForItsText) {
  const KeptParameters usual = random_checkpoint(kQwen3_5);
  KeptParameters nested = renamed(usual, "model.", "model.language_model.");
  nested.tensors["model.visual.patch_embed.proj.weight"] = usual.at("model.norm.weight");
  nested.tensors["mtp.norm.weight"] = usual.at("model.norm.weight");
  const std::string config =
      concat(R"({"model_type": "qwen3_5", "tie_word_embeddings": false, "text_config": )", kQwen3_5.config,
             R"(, "vision_config": {"depth": 2}})");
  EXPECT_EQ(logits_of(config.c_str(), nested), logits_of(kQwen3_5.config, usual));
  EXPECT_EQ(logits_of(config.c_str(), usual), logits_of(kQwen3_5.config, usual));
}

// The authors' configuration of kKimiLinear.
constexpr const char* kKimiAuthors = R"({"model_type": "kimi_linear", "vocab_size": 47, "hidden_size": 26,
  "intermediate_size": 38, "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 3,
  "linear_attn_config": {"kda_layers": [1, 3], "full_attn_layers": [2, 4], "num_heads": 2, "head_dim": 7,
  "short_conv_kernel_size": 3}, "first_k_dense_replace": 1, "moe_layer_freq": 1, "q_lora_rank": 11,
  "kv_lora_rank": 9, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5, "mla_use_nope": true,
  "num_experts": 6, "num_experts_per_token": 2, "num_expert_group": 3, "topk_group": 2,
  "use_grouped_topk": true, "moe_router_activation_func": "sigmoid", "moe_renormalize": true,
  "moe_intermediate_size": 15, "num_shared_experts": 2, "routed_scaling_factor": 2.5, "rope_theta": 10000.0,
  "model_max_length": 64})";

TEST(HybridCheckpoint, KimiMayBeTheAuthorsOrTransformers) {
  std::string config(kKimiLinear.config);
  const std::string last = "\"sparse\", \"dense\"]";  // the authors have only the first layers dense
  config.replace(config.find(last), last.size(), "\"sparse\", \"sparse\"]");
  const KeptParameters usual = random_checkpoint({"kimi_linear", config.c_str()});
  const Logits want = logits_of(config.c_str(), usual);
  const KeptParameters authors = renamed(usual, ".block_sparse_moe.", ".mlp.");
  EXPECT_TRUE(authors.contains("model.layers.1.mlp.experts.0.gate_proj.weight"));
  EXPECT_EQ(logits_of(kKimiAuthors, authors), want);
  EXPECT_EQ(logits_of(config.c_str(), authors), want);
  KeptParameters shaped = usual;
  shaped.tensors["model.layers.0.self_attn.A_log"].shape = {1, 1, 2, 1};
  EXPECT_EQ(logits_of(config.c_str(), shaped), want);
  shaped.tensors["model.layers.0.self_attn.A_log"].shape = {1};
  EXPECT_EQ(refusal([&] { logits_of(config.c_str(), shaped); }),
            "checkpoint: tensor \"model.layers.0.self_attn.A_log\" has shape [1], expected 2 elements");
}

TEST(HybridCheckpoint, KimisGatesMayBeBoundedAndOfFullRank) {
  std::string config(kKimiAuthors);
  config.replace(config.find("\"num_heads\": 2"), 14,
                 "\"num_heads\": 2, \"gate_lower_bound\": -5.0, \"use_full_rank_gate\": true");
  config.replace(config.find("\"mla_use_nope\""), 14, "\"mla_use_output_gate\": true, \"mla_use_nope\"");
  const KeptParameters p = random_checkpoint({"kimi_linear", config.c_str()});
  EXPECT_TRUE(p.contains("model.layers.0.self_attn.g_proj.weight"));
  EXPECT_TRUE(p.contains("model.layers.1.self_attn.g_proj.weight"));
  EXPECT_FALSE(p.contains("model.layers.0.self_attn.g_a_proj.weight"));
  // With G_b the identity the low-rank gate is the full-rank one.
  std::string low = config;
  low.erase(low.find(", \"use_full_rank_gate\": true"),
            std::string_view(", \"use_full_rank_gate\": true").size());
  KeptParameters factored = p;
  auto one = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{14 * 14});
  for (Index i = 0; i < 14; ++i) one->data()[15 * i] = 1;
  for (int layer : {0, 2}) {
    const std::string prefix = concat("model.layers.", layer, ".self_attn.");
    factored.tensors[prefix + "g_a_proj.weight"] = factored.tensors[prefix + "g_proj.weight"];
    factored.tensors[prefix + "g_b_proj.weight"] = {one->data(), DType::f32, {14, 14}, one};
    factored.tensors.erase(prefix + "g_proj.weight");
  }
  EXPECT_LE(error(logits_of(low.c_str(), factored), logits_of(config.c_str(), p)), 200 * kEps);
  std::string free = low;
  free.erase(free.find(", \"gate_lower_bound\": -5.0"),
             std::string_view(", \"gate_lower_bound\": -5.0").size());
  EXPECT_GT(error(logits_of(free.c_str(), factored), logits_of(low.c_str(), factored)), 1e-4);
}

TEST(HybridCheckpoint, MiniMaxsBuffersAreNotLookedAt) {
  const KeptParameters usual = random_checkpoint(kMiniMax);
  KeptParameters more = renamed(usual, "nothing", "");
  for (const char* buffer : {"slope_rate", "query_decay", "key_decay", "diagonal_decay"})
    more.tensors[concat("model.layers.1.self_attn.", buffer)] = usual.at("model.norm.weight");
  EXPECT_EQ(logits_of(kMiniMax.config, more), logits_of(kMiniMax.config, usual));
}

TEST(HybridCheckpoint, TheFileSaysHowWideLfm2sMlpIs) {
  KeptParameters p = random_checkpoint(kLfm2);  // 48: two thirds of 66, a multiple of 8
  EXPECT_EQ(p.at("model.layers.1.feed_forward.w1.weight").shape, (std::vector<Index>{48, 30}));
  for (const char* part : {"w1", "w3"}) {
    Parameter& w = p.tensors[concat("model.layers.1.feed_forward.", part, ".weight")];
    w = slice(w, 0, 40);
  }
  Parameter& down = p.tensors["model.layers.1.feed_forward.w2.weight"];
  down = transpose(slice(transpose(down), 0, 40));
  for (float e : logits_of(kLfm2.config, p)) ASSERT_TRUE(std::isfinite(e));
}

}  // namespace
}  // namespace ashlar
