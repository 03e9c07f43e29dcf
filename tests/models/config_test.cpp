// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ashlar/models/llama.hpp"
#include "ashlar/models/olmo3.hpp"
#include "ashlar/models/olmo_hybrid.hpp"
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

// A config of every required member, with `more` in front of it: the first of two equal names is the one
// found.
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
std::vector<float> llama_rope(const std::string& more) {
  return inverse(LlamaConfig::from(config(more)).rope);
}

TEST(Config, DefaultsAreThoseOfTheArchitecture) {
  const LlamaConfig c = LlamaConfig::from(config());
  EXPECT_EQ(c.kv_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.max_positions, 2048);
  EXPECT_EQ(c.norm_eps, 1e-6f);
  EXPECT_FALSE(c.tied || c.attention_bias || c.mlp_bias);
  EXPECT_EQ(inverse(c.rope), inverse(rope_frequencies(16, 10000)));
  EXPECT_EQ(LlamaConfig::from(config(R"("head_dim": 6, "num_key_value_heads": 2)")).head_dim, 6);

  const OlmoHybridConfig h = OlmoHybridConfig::from(config());
  EXPECT_EQ(h.layer_types, (std::vector<std::string>{"linear_attention", "linear_attention",
                                                     "linear_attention", "full_attention"}));
  EXPECT_EQ(h.linear.key_heads, 4);
  EXPECT_EQ(h.linear.key_dim, 12);
  EXPECT_EQ(h.linear.value_dim, 24);
  EXPECT_EQ(h.linear.conv_width, 4);
  EXPECT_TRUE(h.linear.negative_eigenvalues);
  EXPECT_EQ(h.max_positions, 65536);
  EXPECT_FALSE(h.rope);
}

TEST(Config, OldAndNewSpellingsOfRopeAreTheSame) {
  EXPECT_EQ(llama_rope(R"("rope_theta": 500000.0)"),
            llama_rope(R"("rope_parameters": {"rope_theta": 500000.0})"));
  const std::string llama3 = R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256)";
  const auto scaled =
      llama_rope(concat(R"("rope_parameters": {"rope_type": "llama3", "rope_theta": 500, )", llama3, "}"));
  EXPECT_EQ(scaled, inverse(rope_frequencies(16, 500, Llama3Scaling{8, 1, 4, 256})));
  EXPECT_NE(scaled, inverse(rope_frequencies(16, 500)));
  EXPECT_EQ(scaled,
            llama_rope(concat(R"("rope_theta": 500, "rope_scaling": {"type": "llama3", )", llama3, "}")));
  EXPECT_EQ(scaled, llama_rope(concat(R"("rope_theta": 500, "rope_scaling": {"rope_type": "llama3", )",
                                      llama3, "}")));
  EXPECT_EQ(llama_rope(R"("rope_scaling": null)"), llama_rope(""));
}

TEST(Config, LinearScalingDividesEachFrequency) {
  const auto plain = llama_rope(""),
             scaled = llama_rope(R"("rope_scaling": {"type": "linear", "factor": 4})");
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(scaled[i], plain[i] / 4);
}

TEST(Config, YarnTakesItsFactorFromTheContextsWhereItHasNone) {
  const LlamaConfig given = LlamaConfig::from(config(R"("max_position_embeddings": 512, "rope_parameters":
    {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 128})"));
  const LlamaConfig implied = LlamaConfig::from(config(R"("max_position_embeddings": 512, "rope_parameters":
    {"rope_type": "yarn", "original_max_position_embeddings": 128})"));
  const RopeFrequencies want = rope_frequencies(16, 10000, YarnScaling{4, 128});
  EXPECT_EQ(inverse(given.rope), inverse(want));
  EXPECT_EQ(inverse(implied.rope), inverse(want));
  EXPECT_EQ(given.rope.factor, want.factor);
  const LlamaConfig chosen = LlamaConfig::from(config(R"("rope_parameters": {"rope_type": "yarn", "factor": 4,
    "original_max_position_embeddings": 128, "attention_factor": 1.5, "beta_fast": 16, "beta_slow": 2,
    "truncate": false})"));
  EXPECT_EQ(chosen.rope.factor, 1.5f);
  EXPECT_EQ(inverse(chosen.rope),
            inverse(rope_frequencies(16, 10000, YarnScaling{4, 128, 16, 2, 1.5, false})));
  const LlamaConfig pair = LlamaConfig::from(config(R"("rope_parameters": {"rope_type": "yarn", "factor": 4,
    "original_max_position_embeddings": 128, "mscale": 0.5, "mscale_all_dim": 2})"));
  EXPECT_NEAR(pair.rope.factor, (0.05 * std::log(4) + 1) / (0.2 * std::log(4) + 1), 1e-6);
}

TEST(Config, Olmo3ScalesOnlyFullLayers) {
  const std::string yarn = R"("rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64)";
  const Olmo3Config each =
      Olmo3Config::from(config(concat(R"("rope_parameters": {"full_attention": {"rope_theta": 5e5, )", yarn,
                                      R"(}, "sliding_attention": {"rope_theta": 5e5}})")));
  const Olmo3Config old =
      Olmo3Config::from(config(concat(R"("rope_theta": 5e5, "rope_scaling": {)", yarn, "}")));
  for (const Olmo3Config& c : {each, old}) {
    EXPECT_EQ(inverse(c.sliding_rope), inverse(rope_frequencies(16, 5e5)));
    EXPECT_EQ(c.sliding_rope.factor, 1);
    EXPECT_EQ(inverse(c.full_rope), inverse(rope_frequencies(16, 5e5, YarnScaling{8, 64})));
    EXPECT_GT(c.full_rope.factor, 1);
    EXPECT_EQ(c.layer_types[2], "sliding_attention");
    EXPECT_EQ(c.layer_types[3], "full_attention");
    EXPECT_EQ(c.attention(2).window, 4096);
    EXPECT_EQ(c.attention(3).window, 0);
  }
}

TEST(Config, OlmoHybridRotatesOnlyWhereThereIsATheta) {
  auto rope = [](const std::string& more) { return OlmoHybridConfig::from(config(more)).rope; };
  EXPECT_FALSE(rope(R"("rope_parameters": null)"));
  EXPECT_FALSE(rope(R"("rope_theta": null)"));
  EXPECT_FALSE(rope(R"("rope_parameters": {"rope_type": "default"})"));
  EXPECT_EQ(inverse(*rope(R"("rope_parameters": {"rope_theta": 700})")), inverse(rope_frequencies(16, 700)));
  EXPECT_EQ(inverse(*rope(R"("rope_theta": 700)")), inverse(rope_frequencies(16, 700)));
}

TEST(Config, RefusesWhatItDoesNotKnow) {
  auto llama = [](const std::string& more) { return refusal([&] { LlamaConfig::from(config(more)); }); };
  auto hybrid = [](const std::string& more) {
    return refusal([&] { OlmoHybridConfig::from(config(more)); });
  };
  EXPECT_EQ(llama(R"("hidden_act": "mish")"),
            "config: \"hidden_act\" is \"mish\", which is not supported; supported: silu, gelu, gelu_new, "
            "gelu_pytorch_tanh, relu, relu2");
  EXPECT_EQ(llama(R"("rope_scaling": {"type": "dynamic", "factor": 2})"),
            "config: \"rope_type\" is \"dynamic\", which is not supported; supported: default, linear, "
            "llama3, yarn");
  EXPECT_EQ(
      llama(R"("layer_types": ["full_attention", "full_attention", "full_attention", "chunked_attention"])"),
      "config: \"layer_types\" is \"chunked_attention\", which is not supported; supported: full_attention");
  EXPECT_EQ(llama(R"("sliding_window": 128)"),
            "config: \"sliding_window\" is \"128\", which is not supported; supported: null");
  EXPECT_EQ(llama(R"("quantization_config": {"quant_method": "gptq"})"),
            "config: \"quantization_config\" is \"gptq\", which is not supported; supported: none, f32, f16 "
            "or bf16 "
            "weights");
  EXPECT_EQ(llama(R"("rope_parameters": {"partial_rotary_factor": 0.5})"),
            "config: \"partial_rotary_factor\" is \"0.500000\", which is not supported; supported: 1");
  EXPECT_EQ(llama(R"("num_key_value_heads": 3)"),
            "config: \"num_attention_heads\" is 4, expected a multiple of \"num_key_value_heads\", 3");
  EXPECT_EQ(llama(R"("vocab_size": 0)"),
            "config: \"vocab_size\" is 0, expected a number from 1 to 2147483648");
  EXPECT_EQ(llama(R"("hidden_size": 62)"),
            "config: \"hidden_size\" is 62, expected a multiple of 4 heads where \"head_dim\" is absent");
  EXPECT_EQ(llama(R"("head_dim": 7)"), "config: \"head_dim\" is 7, expected an even number for rope");
  EXPECT_EQ(llama(R"("rope_theta": -1)"), "config: \"rope_theta\" is -1.000000, expected a positive number");
  EXPECT_EQ(hybrid(R"("linear_num_value_heads": 6)"),
            "config: \"linear_num_value_heads\" is 6, expected a multiple of \"linear_num_key_heads\", 4");
  EXPECT_EQ(hybrid(R"("layer_types": ["linear_attention"])"),
            "config: \"layer_types\" is not a list of 4 names");
  EXPECT_EQ(refusal([] { LlamaConfig::from(parse_json("{}", "config")); }),
            "config: \"vocab_size\" is missing");
}

TEST(Config, AnUnknownModelNamesTheKnownOnes) {
  CpuExec exec;
  try {
    load_decoder_lm(parse_json(R"({"model_type": "gpt5"})", "config"), RandomParameters(DType::f32), exec);
    FAIL() << "nothing was refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), "UnknownModel");
    const std::string sentence = e.what();
    EXPECT_NE(sentence.find("\"gpt5\""), std::string::npos);
    for (const char* known : {"llama", "olmo3", "olmo_hybrid"})
      EXPECT_NE(sentence.find(known), std::string::npos);
  }
}

}  // namespace
}  // namespace ashlar
