// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gpt_oss.hpp"

#include <cmath>

#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

Value config(const std::string& more = "") {
  return parse_json(concat("{", more, more.empty() ? "" : ", ",
                           R"("vocab_size": 10, "hidden_size": 36, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2})"),
                    "config");
}
std::vector<float> inverse(const RopeFrequencies& f) {
  return {f.inverse.data(), f.inverse.data() + f.inverse.size()};
}
Logits logits_of(const std::string& config, const Parameters& parameters) {
  CpuExec exec;
  const auto model = load_decoder_lm(parse_json(config, "config"), parameters, exec);
  return full_forward(*model, random_ids(*model, 9, 1), exec);
}

TEST(GptOss, DefaultsAreThoseOfTheArchitecture) {
  const GptOssConfig c = GptOssConfig::from(config());
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.norm_eps, 1e-5f);
  EXPECT_TRUE(c.attention_bias);
  EXPECT_TRUE(c.attention(0).sinks);
  EXPECT_EQ(c.attention(0).window, 128);
  EXPECT_EQ(c.attention(1).window, 0);
  EXPECT_EQ(c.attention(2).window, 128);
  EXPECT_EQ(c.moe.experts, 128);
  EXPECT_EQ(c.moe.chosen, 4);
  EXPECT_EQ(c.moe.width, 2880);
  EXPECT_EQ(c.moe.slope, 1.702f);
  EXPECT_EQ(c.moe.limit, 7);
  EXPECT_EQ(inverse(c.full_rope),
            inverse(rope_frequencies(64, 150000, YarnScaling{32, 4096, 32, 1, 0, false})));
  EXPECT_EQ(inverse(c.sliding_rope), inverse(c.full_rope));
}

TEST(GptOss, RefusesWhatItDoesNotKnow) {
  auto refused = [](const std::string& more) { return refusal([&] { GptOssConfig::from(config(more)); }); };
  EXPECT_EQ(refused(R"("hidden_act": "gelu")"),
            "config: \"hidden_act\" is \"gelu\", which is not supported; supported: silu");
  EXPECT_EQ(refused(R"("swiglu_limit": 0)"),
            "config: \"swiglu_limit\" is 0.000000, expected a positive number");
  EXPECT_EQ(refused(R"("num_local_experts": 3)"),
            "config: \"num_experts_per_tok\" is 4, expected at most \"num_local_experts\", 3");
  EXPECT_EQ(
      refused(R"("quantization_config": {"quant_method": "mxfp4"})"),
      "config: \"quantization_config\" is \"mxfp4\", which is not supported; supported: none, f32, f16 or "
      "bf16 weights");
}

TEST(GptOss, RefusesExpertsOfFourBits) {
  KeptParameters p = random_checkpoint(kGptOss);
  const std::string name = "model.layers.0.mlp.experts.gate_up_proj";
  for (const char* part : {"_blocks", "_scales"}) p.tensors[name + part] = p.at(name);
  p.tensors.erase(name);
  EXPECT_EQ(refusal([&] { logits_of(kGptOss.config, p); }),
            concat("checkpoint: \"", name, "_blocks\" holds MXFP4 blocks, expected \"", name,
                   "\" of f32, f16 or bf16"));
}

TEST(GptOss, SinksOfMinusInfinityAreNone) {
  const KeptParameters usual = random_checkpoint(kGptOss);
  KeptParameters without = usual, low = usual;
  auto sinks = [&](float value) {
    auto all = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{6});
    for (Index h = 0; h < 6; ++h) all->data()[h] = value;
    return Parameter{all->data(), DType::f32, {6}, all};
  };
  for (int layer : {0, 1, 2}) {
    without.tensors[concat("model.layers.", layer, ".self_attn.sinks")] = sinks(-INFINITY);
    low.tensors[concat("model.layers.", layer, ".self_attn.sinks")] = sinks(-80);
  }
  const Logits none = logits_of(kGptOss.config, without);
  EXPECT_LE(error(logits_of(kGptOss.config, low), none), 20 * kEps);
  EXPECT_GT(error(logits_of(kGptOss.config, usual), none), 1e-3);
}

}  // namespace
}  // namespace ashlar
