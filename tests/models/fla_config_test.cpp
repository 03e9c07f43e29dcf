// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/fla.hpp"

#include <cmath>

#include "ashlar/models/fla_layers.hpp"
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

Value parsed(const char* text) { return parse_json(text, "config"); }
constexpr FlaScope kLayer = FlaScope::layer, kModel = FlaScope::model;

TEST(FlaConfig, HasTheAuthorsDefaults) {
  const FlaConfig c = FlaConfig::from(parsed("{}"));
  EXPECT_EQ(c.vocab_size, 32000);
  EXPECT_EQ(c.hidden_size, 2048);
  EXPECT_EQ(c.layers, 24);
  EXPECT_EQ(c.intermediate_size, 5632);
  EXPECT_EQ(c.norm_eps, 1e-6f);
  EXPECT_FALSE(c.tied || c.attention.any());
  EXPECT_EQ(FlaConfig::from(parsed(R"({"hidden_size": 1024})")).intermediate_size, 2816);
  EXPECT_EQ(FlaConfig::from(parsed(R"({"rms_norm_eps": 1e-5})")).norm_eps, 1e-5f);
}

TEST(FlaConfig, ALayerAloneHasOtherDefaultsThanAModel) {
  EXPECT_EQ(delta_net_layer(parsed("{}"), kModel).heads, 16);
  EXPECT_EQ(delta_net_layer(parsed("{}"), kLayer).heads, 4);
  const auto model = gated_delta_product_layer(parsed("{}"), kModel),
             layer = gated_delta_product_layer(parsed("{}"), kLayer);
  EXPECT_EQ(model.substeps, 1);
  EXPECT_EQ(layer.substeps, 2);
  EXPECT_TRUE(layer.forget_gate && layer.negative_eigenvalues);
  EXPECT_FALSE(model.forget_gate || model.negative_eigenvalues);
  EXPECT_EQ(gla_layer(parsed("{}"), kLayer).norm_eps, 1e-5f);
  const auto gla = gla_layer(parsed("{}"), kModel);
  EXPECT_EQ(gla.key_dim, 256);
  EXPECT_EQ(gla.value_dim, 512);
  EXPECT_EQ(gla.decay_rank, 16);
  EXPECT_EQ(gla.conv.width, 0);
  EXPECT_EQ(simple_gla_layer(parsed("{}"), kLayer).conv.width, 4);
  EXPECT_EQ(retention_layer(parsed("{}"), kModel).value_dim, 512);
  EXPECT_EQ(kda_layer(parsed("{}"), kModel).decay_rank, 128);
  const auto hgrn2 = hgrn2_layer(parsed(R"({"expand_ratio": null, "num_heads": 4})"), kModel);
  EXPECT_EQ(hgrn2.heads, 4);
  EXPECT_EQ(hgrn2.key_dim, 512);
}

TEST(FlaConfig, RefusesWhatDoesNotFitAndWhatItDoesNotImplement) {
  auto refused = [](auto&& f) { return refusal(f); };
  EXPECT_EQ(refused([] { FlaConfig::from(parsed(R"({"attnres_block_size": 4})")); }),
            "config: \"attnres_block_size\" is \"4\", which is not supported; supported: null");
  EXPECT_EQ(
      refused([] { FlaConfig::from(parsed(R"({"hidden_act": "powlu"})")); }),
      "config: \"hidden_act\" is \"powlu\", which is not supported; supported: silu, swish, sqrelu, relu, "
      "sigmoid, gelu");
  EXPECT_EQ(refused([] { FlaConfig::from(parsed(R"({"attn": {"layers": [24], "num_heads": 2}})")); }),
            "config: \"attn\" names a layer that is not an integer from 0 to 23");
  EXPECT_EQ(refused([] { delta_net_layer(parsed(R"({"qk_norm": "max"})"), kModel); }),
            "config: \"qk_norm\" is \"max\", which is not supported; supported: l2, sum");
  EXPECT_EQ(
      refused([] { delta_net_layer(parsed(R"({"qk_activation": "tanh"})"), kModel); }),
      "config: \"qk_activation\" is \"tanh\", which is not supported; supported: silu, relu, elu, identity");
  EXPECT_EQ(refused([] { gated_delta_net_layer(parsed(R"({"head_dim": 5, "expand_v": 1.5})"), kModel); }),
            "config: \"expand_v\" is 1.500000 and \"head_dim\" 5, expected a whole product");
  EXPECT_EQ(refused([] { gated_delta_net_layer(parsed(R"({"num_heads": 4, "num_v_heads": 6})"), kModel); }),
            "config: \"num_v_heads\" is 6, expected a multiple of \"num_heads\", 4");
  EXPECT_EQ(refused([] { kda_layer(parsed(R"({"safe_gate": true})"), kModel); }),
            "config: \"safe_gate\" is set without a \"lower_bound\"");
  EXPECT_EQ(refused([] { kda_layer(parsed(R"({"lower_bound": 0})"), kModel); }),
            "config: \"lower_bound\" is 0.000000, expected a negative number");
  EXPECT_EQ(refused([] { gla_layer(parsed(R"({"clamp_min": 0.5})"), kModel); }),
            "config: \"clamp_min\" is 0.500000, expected up to 0");
  EXPECT_EQ(refused([] { gla_layer(parsed(R"({"use_gv": true})"), kModel); }),
            "config: \"use_gv\" is \"true\", which is not supported; supported: false");
  EXPECT_EQ(refused([] { gla_layer(parsed(R"({"num_heads": 4, "num_kv_heads": 3})"), kModel); }),
            "config: \"num_heads\" is 4, expected a multiple of \"num_kv_heads\", 3");
  EXPECT_EQ(
      refused([] { gla_layer(parsed(R"({"feature_map": "taylor"})"), kModel); }),
      "config: \"feature_map\" is \"taylor\", which is not supported; supported: silu, swish, sqrelu, relu, "
      "sigmoid, gelu");
  EXPECT_EQ(refused([] { retention_layer(parsed(R"({"hidden_size": 24})"), kModel); }),
            "config: \"num_heads\" makes heads of 3, expected an even number for their rotation");
  EXPECT_EQ(refused([] { linear_attn_layer(parsed(R"({"feature_map": "taylor"})"), kLayer); }),
            "config: \"feature_map\" is \"taylor\", which is not supported; supported: identity, elu, relu, "
            "elementwise_product, t2r, hedgehog, dpfp");
  EXPECT_EQ(refused([] { hgrn2_layer(parsed(R"({"hidden_size": 100, "expand_ratio": 30})"), kModel); }),
            "config: \"expand_ratio\" is 30 and \"hidden_size\" 100, expected heads that divide it");
  CpuExec exec;
  EXPECT_EQ(refused([&] {
              load_decoder_lm(parsed(R"({"model_type": "hgrn", "hidden_size": 8, "expand_ratio": 2,
                                         "vocab_size": 8, "num_hidden_layers": 1})"),
                              RandomParameters(DType::f32), exec);
            }),
            "config: \"expand_ratio\" makes 16 channels, expected 8 where \"use_lower_bound\" is set");
}

TEST(FlaModels, LowerBoundsRiseFromZeroWithTheLayer) {
  KeptParameters kept;
  auto raw = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{6});
  const float values[] = {0, 1, 0.5f, -2, 0.25f, 3};
  std::copy_n(values, 6, raw->data());
  kept.tensors["model.lower_bounds"] = {raw->data(), DType::f32, {3, 2}, raw};
  const Tensor<float, 2> bounds = read_lower_bounds(ParameterLookup(kept), 3, 2);
  for (Index i = 0; i < 2; ++i) {
    const double a = std::exp(values[i]), b = std::exp(values[2 + i]), c = std::exp(values[4 + i]);
    EXPECT_EQ(bounds.view()(0, i), 0);
    EXPECT_NEAR(bounds.view()(1, i), b / (a + b + c), 1e-7);
    EXPECT_NEAR(bounds.view()(2, i), (b + c) / (a + b + c), 1e-7);
  }
}

// Older files keep a layer's norms inside its parts.
TEST(FlaModels, ReadTheNormsOfOlderCheckpoints) {
  CpuExec exec;
  KeptParameters kept = random_checkpoint(kGatedDeltaNet);
  const auto want = load_decoder_lm(parsed(kGatedDeltaNet.config), kept, exec);
  KeptParameters older;
  for (const auto& [name, p] : kept.tensors) {
    std::string renamed = name;
    for (const char* part : {"attn", "mlp"}) {
      const std::string now = concat(part, "_norm.weight");
      if (name.ends_with(now))
        renamed.replace(name.size() - now.size(), now.size(), concat(part, ".norm.weight"));
    }
    older.tensors[renamed] = p;
  }
  const auto got = load_decoder_lm(parsed(kGatedDeltaNet.config), older, exec);
  const Ids ids = random_ids(*want, 12, 3);
  EXPECT_EQ(full_forward(*got, ids, exec), full_forward(*want, ids, exec));
}

TEST(FlaModels, ReadTheBiasesOfConvolutionsAndRefuseMissingTensors) {
  CpuExec exec;
  KeptParameters kept = random_checkpoint(kGatedDeltaNet);
  const auto plain = load_decoder_lm(parsed(kGatedDeltaNet.config), kept, exec);
  for (const char* part : {"q", "k", "v"}) {
    const std::string name = concat("model.layers.0.attn.", part, "_conv1d.bias");
    const Index n = kept.tensors.at(concat("model.layers.0.attn.", part, "_conv1d.weight")).shape[0];
    kept.tensors[name] = RandomParameters(DType::f32).make(name, std::array{n});
  }
  const auto biased = load_decoder_lm(parsed(kGatedDeltaNet.config), kept, exec);
  const Ids ids = random_ids(*plain, 6, 4);
  EXPECT_NE(full_forward(*biased, ids, exec), full_forward(*plain, ids, exec));
  kept.tensors.erase("model.layers.0.attn.k_conv1d.bias");
  EXPECT_EQ(refusal([&] { load_decoder_lm(parsed(kGatedDeltaNet.config), kept, exec); }),
            "checkpoint: there is no tensor \"model.layers.0.attn.k_conv1d.bias\"");
  KeptParameters more = random_checkpoint(kRetNet);
  more.tensors["model.layers.0.attn.g_proj.weight"] = more.tensors.at("model.layers.0.attn.q_proj.weight");
  EXPECT_NE(refusal([&] {
              load_decoder_lm(parsed(kRetNet.config), more, exec);
            }).find("model.layers.0.attn.g_proj.weight"),
            std::string::npos);
}

}  // namespace
}  // namespace ashlar
