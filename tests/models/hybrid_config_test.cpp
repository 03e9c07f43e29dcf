// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/kimi_linear.hpp"
#include "ashlar/models/lfm2.hpp"
#include "ashlar/models/minimax.hpp"
#include "ashlar/models/qwen3_5.hpp"
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;
using Types = std::vector<std::string>;

// As in config_test.
Value config(const std::string& more = "") {
  Value::Object members;
  if (!more.empty()) members = *parse_json(concat("{", more, "}"), "config").object();
  const Value rest =
      parse_json(R"({"vocab_size": 10, "hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 4,
    "num_attention_heads": 4})",
                 "config");
  members.insert(members.end(), rest.object()->begin(), rest.object()->end());
  return members;
}
std::vector<float> inverse(const RopeFrequencies& f) {
  return {f.inverse.data(), f.inverse.data() + f.inverse.size()};
}

TEST(HybridConfig, DefaultsAreThoseOfTheArchitectures) {
  const Qwen3NextConfig q = Qwen3NextConfig::from(config());
  EXPECT_EQ(q.layer_types,
            (Types{"linear_attention", "linear_attention", "linear_attention", "full_attention"}));
  EXPECT_EQ(q.head_dim, 256);
  EXPECT_EQ(inverse(q.rope), inverse(rope_frequencies(64, 10000)));  // a quarter of the head
  EXPECT_EQ(q.moe.experts, 512);
  EXPECT_EQ(q.moe.chosen, 10);
  EXPECT_TRUE(q.moe.renormalize && q.moe.shared_gate && q.output_gate);
  EXPECT_EQ(q.sparse, (std::vector<bool>{true, true, true, true}));
  const Qwen3NextConfig dense = Qwen3_5Config::from(config(R"("model_type": "qwen3_5_text")"));
  EXPECT_EQ(dense.sparse, (std::vector<bool>{false, false, false, false}));
  const Qwen3NextConfig moe = Qwen3_5Config::from(config(R"("model_type": "qwen3_5_moe")"));
  EXPECT_EQ(moe.moe.experts, 256);
  EXPECT_EQ(moe.moe.chosen, 8);

  const Lfm2Config l = Lfm2Config::from(config());
  EXPECT_EQ(l.layer_types, Types(4, "full_attention"));
  EXPECT_EQ(l.conv_width, 3);
  EXPECT_EQ(l.norm_eps, 1e-5f);
  EXPECT_TRUE(l.tied);
  EXPECT_EQ(inverse(l.rope), inverse(rope_frequencies(16, 1e6)));

  const MiniMaxConfig m = MiniMaxConfig::from(config());
  EXPECT_EQ(m.layer_types,
            (Types{"full_attention", "linear_attention", "full_attention", "linear_attention"}));
  EXPECT_EQ(m.moe.experts, 8);
  EXPECT_EQ(m.moe.chosen, 2);
  EXPECT_EQ(m.moe.width, 8);
  EXPECT_EQ(m.full_factors.keep, 1);
}

TEST(HybridConfig, KimisLayersMayBeNamedCountedOrLeftOut) {
  auto kimi = [](const std::string& more) { return KimiLinearConfig::from(config(more)); };
  const Types three_to_one{"linear_attention", "linear_attention", "linear_attention", "full_attention"};
  const KimiLinearConfig usual = kimi("");
  EXPECT_EQ(usual.layer_types, three_to_one);
  EXPECT_EQ(usual.sparse, (std::vector<bool>{false, true, true, true}));
  EXPECT_EQ(usual.moe.experts, 256);
  EXPECT_EQ(usual.moe.chosen, 8);
  EXPECT_EQ(usual.moe.shared_width, 1024);
  EXPECT_EQ(usual.latent.rank, 512);
  EXPECT_EQ(usual.latent.norm_eps, 1e-6f);
  EXPECT_EQ(usual.norm_eps, 1e-5f);
  EXPECT_EQ(kimi(R"("linear_attn_config": {"kda_layers": [1, 2, 3], "full_attn_layers": [4]})").layer_types,
            three_to_one);
  EXPECT_EQ(kimi(R"("layer_types": ["full_attention", "kda_attention", "kda_attention", "full_attention"])")
                .layer_types,
            (Types{"full_attention", "linear_attention", "linear_attention", "full_attention"}));
  EXPECT_EQ(kimi(R"("first_k_dense_replace": 2, "moe_layer_freq": 3)").sparse,
            (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ(kimi(R"("num_experts": 0)").sparse, std::vector<bool>(4, false));
  auto refused = [&](const std::string& more) { return refusal([&] { kimi(more); }); };
  EXPECT_EQ(refused(R"("linear_attn_config": {"kda_layers": [1, 2], "full_attn_layers": [4]})"),
            "config: layer 3 is neither in \"kda_layers\" nor in \"full_attn_layers\"");
  EXPECT_EQ(refused(R"("linear_attn_config": {"kda_layers": [0], "full_attn_layers": [4]})"),
            "config: \"kda_layers\" holds what is not a layer from 1 to 4");
  EXPECT_EQ(refused(R"("mla_use_nope": false)"),
            "config: \"mla_use_nope\" is \"false\", which is not supported; supported: true");
  EXPECT_EQ(
      refused(R"("num_key_value_heads": 2)"),
      "config: \"num_key_value_heads\" is \"2\", which is not supported; supported: the number of heads, 4");
  EXPECT_EQ(refused(R"("num_expert_group": 3)"),
            "config: 1 of 3 groups of 256 experts, expected groups that divide them");
  EXPECT_EQ(refused(R"("attn_res_block_size": 12)"),
            "config: \"attn_res_block_size\" is \"12\", which is not supported; supported: none");
  EXPECT_EQ(refused(R"("mlp_layer_types": ["dense", "sparse", "sparse", "moe"])"),
            "config: \"mlp_layer_types\" is \"moe\", which is not supported; supported: dense, sparse");
}

TEST(HybridConfig, SettingsAreRead) {
  const Qwen3NextConfig q = Qwen3NextConfig::from(config(
      R"("decoder_sparse_step": 2, "mlp_only_layers": [3], "full_attention_interval": 2, "head_dim": 32,
    "rope_parameters": {"rope_theta": 100, "partial_rotary_factor": 0.5}, "norm_topk_prob": false)"));
  EXPECT_EQ(q.sparse, (std::vector<bool>{false, true, false, false}));
  EXPECT_EQ(q.layer_types,
            (Types{"linear_attention", "full_attention", "linear_attention", "full_attention"}));
  EXPECT_EQ(inverse(q.rope), inverse(rope_frequencies(16, 100)));
  EXPECT_FALSE(q.moe.renormalize);
  const Lfm2Config l =
      Lfm2Config::from(config(R"("full_attn_idxs": [1, 3], "block_ff_dim": 100, "block_multiple_of": 16,
    "block_ffn_dim_multiplier": 1.5, "tie_embedding": false, "theta": 500, "conv_bias": true)"));
  EXPECT_EQ(l.layer_types, (Types{"conv", "full_attention", "conv", "full_attention"}));
  EXPECT_EQ(l.mlp_width, 112);  // 66 times 1.5, rounded up
  EXPECT_FALSE(l.tied);
  EXPECT_TRUE(l.conv_bias);
  EXPECT_EQ(inverse(l.rope), inverse(rope_frequencies(16, 500)));
  EXPECT_EQ(Lfm2Config::from(config(R"("block_auto_adjust_ff_dim": false)")).mlp_width, 8);
  const MiniMaxConfig m = MiniMaxConfig::from(
      config(R"("linear_attn_alpha_factor": 2, "mlp_beta_factor": 0.5, "sliding_window": 7)"));
  EXPECT_EQ(m.linear_factors.keep, 2);
  EXPECT_EQ(m.mlp_factors.scale, 0.5f);
  EXPECT_EQ(m.window, 7);
}

TEST(HybridConfig, RefusesWhatItDoesNotKnow) {
  auto qwen = [](const std::string& more) { return refusal([&] { Qwen3NextConfig::from(config(more)); }); };
  auto qwen5 = [](const std::string& more) { return refusal([&] { Qwen3_5Config::from(config(more)); }); };
  auto lfm = [](const std::string& more) { return refusal([&] { Lfm2Config::from(config(more)); }); };
  auto minimax = [](const std::string& more) { return refusal([&] { MiniMaxConfig::from(config(more)); }); };
  EXPECT_EQ(qwen(R"("num_experts": 4)"),
            "config: \"num_experts_per_tok\" is 10, expected at most \"num_experts\", 4");
  EXPECT_EQ(qwen(R"("linear_num_value_heads": 17)"),
            "config: \"linear_num_value_heads\" is 17, expected a multiple of \"linear_num_key_heads\", 16");
  EXPECT_EQ(qwen(R"("partial_rotary_factor": 0.004)"),
            "config: \"partial_rotary_factor\" is 0.004000 of \"head_dim\", 256, expected an even number of "
            "channels, at least 2");
  EXPECT_EQ(qwen(R"("partial_rotary_factor": 1.5)"),
            "config: \"partial_rotary_factor\" is 1.500000, expected more than 0, up to 1");
  EXPECT_EQ(qwen(R"("mlp_only_layers": 3)"), "config: \"mlp_only_layers\" is not a list of layers");
  EXPECT_EQ(qwen5(R"("norm_topk_prob": false)"),
            "config: \"norm_topk_prob\" is \"false\", which is not supported; supported: true");
  EXPECT_EQ(lfm(R"("full_attn_idxs": [4])"),
            "config: \"full_attn_idxs\" holds what is not a layer from 0 to 3");
  EXPECT_EQ(lfm(R"("hidden_act": "gelu")"),
            "config: \"hidden_act\" is \"gelu\", which is not supported; supported: silu");
  EXPECT_EQ(minimax(R"("num_experts_per_tok": 9)"),
            "config: \"num_experts_per_tok\" is 9, expected at most \"num_local_experts\", 8");
}

}  // namespace
}  // namespace ashlar
