// SPDX-License-Identifier: Apache-2.0
// What the configurations of Gemma 2 and 3 mean, and which of their checkpoints are the same.
#include "ashlar/models/gemma.hpp"

#include <cmath>

#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

Value config(const std::string& more = "") {
  return parse_json(concat("{", more, more.empty() ? "" : ", ",
                           R"("vocab_size": 10, "hidden_size": 36, "intermediate_size": 8,
    "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 2})"),
                    "config");
}
std::vector<float> inverse(const RopeFrequencies& f) {
  return {f.inverse.data(), f.inverse.data() + f.inverse.size()};
}
std::vector<Index> windows(const GemmaConfig& c) {
  std::vector<Index> w;
  for (Index i = 0; i < c.layers; ++i) w.push_back(c.attention(i).window);
  return w;
}
Logits logits_of(const std::string& config, const Parameters& parameters) {
  CpuExec exec;
  const auto model = load_decoder_lm(parse_json(config, "config"), parameters, exec);
  return full_forward(*model, random_ids(*model, 9, 1), exec);
}
// The configuration of `a` with `from` replaced by `to`.
std::string changed(const Architecture& a, const std::string& from, const std::string& to) {
  std::string text = a.config;
  return text.replace(text.find(from), from.size(), to);
}

TEST(Gemma, DefaultsAreThoseOfTheArchitecture) {
  const GemmaConfig two = Gemma2Config::from(config()), three = Gemma3Config::from(config());
  for (const GemmaConfig& c : {two, three}) {
    EXPECT_EQ(c.head_dim, 256);
    EXPECT_EQ(c.scale, 1 / 16.f);
    EXPECT_EQ(c.embedding_scale, 6);
    EXPECT_EQ(c.activation, Activation::gelu_tanh);
    EXPECT_TRUE(c.tied);
    EXPECT_EQ(c.attention(0).norm_weight_offset, 1);
  }
  EXPECT_EQ(windows(two), (std::vector<Index>{4096, 0, 4096, 0, 4096, 0, 4096}));
  EXPECT_EQ(windows(three), (std::vector<Index>{4096, 4096, 4096, 4096, 4096, 0, 4096}));
  EXPECT_EQ(two.score_soft_cap, 50);
  EXPECT_EQ(two.logit_soft_cap, 30);
  EXPECT_EQ(two.attention(0).qk_norm, QkNorm::none);
  EXPECT_EQ(three.logit_soft_cap, 0);
  EXPECT_EQ(three.attention(0).qk_norm, QkNorm::head);
}

TEST(Gemma, CapsMayBeNull) {
  const GemmaConfig c =
      Gemma2Config::from(config(R"("attn_logit_softcapping": null, "final_logit_softcapping": null)"));
  EXPECT_EQ(c.score_soft_cap, 0);
  EXPECT_EQ(c.logit_soft_cap, 0);
  // Gemma 3's scores have none, whatever its configuration says.
  EXPECT_EQ(Gemma3Config::from(config(R"("attn_logit_softcapping": 5.0)")).score_soft_cap, 0);
}

TEST(Gemma, SlidingLayersHaveARotationOfTheirOwn) {
  const std::string linear = R"("rope_type": "linear", "factor": 8.0)";
  const GemmaConfig each = Gemma3Config::from(
      config(concat(R"("head_dim": 16, "rope_parameters": {"full_attention": {"rope_theta": 5e5, )", linear,
                    R"(}, "sliding_attention": {"rope_theta": 700, "rope_type": "default"}})")));
  const GemmaConfig old = Gemma3Config::from(config(concat(
      R"("head_dim": 16, "rope_theta": 5e5, "rope_local_base_freq": 700, "rope_scaling": {)", linear, "}")));
  std::vector<float> eighth = inverse(rope_frequencies(16, 5e5));
  for (float& f : eighth) f /= 8;
  for (const GemmaConfig& c : {each, old}) {
    EXPECT_EQ(inverse(c.sliding_rope), inverse(rope_frequencies(16, 700)));
    EXPECT_EQ(inverse(c.full_rope), eighth);
    EXPECT_EQ(c.attention(0).rope, &c.sliding_rope);
    EXPECT_EQ(c.attention(5).rope, &c.full_rope);
  }
  const GemmaConfig neither = Gemma3Config::from(config(R"("head_dim": 16)"));
  EXPECT_EQ(inverse(neither.sliding_rope), inverse(rope_frequencies(16, 1e4)));
  EXPECT_EQ(inverse(neither.full_rope), inverse(rope_frequencies(16, 1e6)));
  EXPECT_EQ(
      refusal([] { Gemma3Config::from(config(R"("rope_parameters": {"rope_theta": 5e5})")); }),
      "config: \"rope_parameters\" is one dictionary, expected one for \"sliding_attention\" and one for "
      "\"full_attention\"");
}

TEST(Gemma, RefusesWhatItDoesNotKnow) {
  auto refused = [](const std::string& more) { return refusal([&] { Gemma2Config::from(config(more)); }); };
  EXPECT_EQ(refused(R"("use_bidirectional_attention": true)"),
            "config: \"use_bidirectional_attention\" is \"true\", which is not supported; supported: false");
  EXPECT_EQ(refused(R"("hidden_activation": "mish")"),
            "config: \"hidden_act\" is \"mish\", which is not supported; supported: silu, gelu, gelu_new, "
            "gelu_pytorch_tanh, relu, relu2");
  EXPECT_EQ(refused(R"("query_pre_attn_scalar": 0)"),
            "config: \"query_pre_attn_scalar\" is 0.000000, expected a positive number");
  EXPECT_EQ(refused(R"("final_logit_softcapping": -1)"),
            "config: \"final_logit_softcapping\" is -1.000000, expected a positive number");
  EXPECT_EQ(refused(R"("sliding_window": 0)"),
            "config: \"sliding_window\" is 0, expected a number from 1 to 2147483648");
  EXPECT_EQ(refused(R"("layer_types": ["full_attention"])"),
            "config: \"layer_types\" is not a list of 7 names");
}

// A cap far above the scores changes them by their third power, about (score / cap)^2 / 3 of them.
TEST(Gemma, AHighCapIsNone) {
  const KeptParameters p = random_checkpoint(kGemma2);
  for (const std::string key : {"\"attn_logit_softcapping\": 4.0", "\"final_logit_softcapping\": 6.5"}) {
    const std::string name = key.substr(0, key.find(':'));
    const Logits none = logits_of(changed(kGemma2, key, name + ": null"), p);
    EXPECT_LE(error(logits_of(changed(kGemma2, key, name + ": 1e6"), p), none), 100 * kEps);
    EXPECT_GT(error(logits_of(kGemma2.config, p), none), 1e-3);
  }
}

// 36 is a square; the root of 35 is far from one of either type.
TEST(Gemma, TheEmbeddingsScaleIsRoundedToTheirType) {
  const std::string config = changed(kGemma2, "\"hidden_size\": 36", "\"hidden_size\": 35");
  const KeptParameters usual = random_checkpoint({"gemma2", config.c_str()});
  for (DType dtype : {DType::bf16, DType::f16}) {
    const float exact = std::sqrt(35.f), rounded = rounded_to(dtype, exact);
    EXPECT_NE(exact, rounded);
    // Numbers that both types have, in the narrow type; and times rounded / exact in f32, with a head that is
    // not.
    KeptParameters narrow = usual, scaled = usual, unscaled = usual;
    const Parameter& table = usual.at("model.embed_tokens.weight");
    const Index n = table.size();
    auto few = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{n});
    auto product = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{n});
    auto bits = std::make_shared<Tensor<std::uint16_t, 1>>(std::array<Index, 1>{n});
    for (Index i = 0; i < n; ++i) {
      const float x = std::round(static_cast<const float*>(table.data)[i] * 64) / 64;
      few->data()[i] = x, product->data()[i] = x * (rounded / exact);
      const bf16 b(x);
      const f16 h(x);
      std::memcpy(bits->data() + i, dtype == DType::bf16 ? static_cast<const void*>(&b) : &h, 2);
    }
    narrow.tensors["model.embed_tokens.weight"] = {bits->data(), dtype, table.shape, bits};
    scaled.tensors["model.embed_tokens.weight"] = {product->data(), DType::f32, table.shape, product};
    unscaled.tensors["model.embed_tokens.weight"] = {few->data(), DType::f32, table.shape, few};
    scaled.tensors["lm_head.weight"] = {few->data(), DType::f32, table.shape, few};
    std::string untied = config;
    untied.insert(1, "\"tie_word_embeddings\": false, ");
    const Logits got = logits_of(config, narrow);
    EXPECT_LE(error(got, logits_of(untied, scaled)), 200 * kEps);
    EXPECT_GT(error(got, logits_of(config, unscaled)), 400 * kEps);
  }
}

TEST(Gemma, AModelThatAlsoSeesIsReadForItsText) {
  const KeptParameters usual = random_checkpoint(kGemma3);
  const Logits want = logits_of(kGemma3.config, usual);
  const std::string config = concat(R"({"model_type": "gemma3", "text_config": )", kGemma3.config,
                                    R"(, "vision_config": {"hidden_size": 8}})");
  for (const auto& [prefix, image] : {std::pair<std::string, std::string>{"model.language_model.", "model."},
                                      {"language_model.model.", ""}}) {
    KeptParameters nested;
    for (const auto& [name, p] : usual.tensors)
      nested.tensors[prefix + name.substr(std::string_view("model.").size())] = p;
    nested.tensors[image + "vision_tower.embeddings.weight"] = usual.at("model.norm.weight");
    nested.tensors[image + "multi_modal_projector.weight"] = usual.at("model.norm.weight");
    EXPECT_EQ(logits_of(config, nested), want);
  }
  EXPECT_EQ(logits_of(config, usual), want);
}

}  // namespace
}  // namespace ashlar
