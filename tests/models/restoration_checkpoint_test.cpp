// SPDX-License-Identifier: Apache-2.0
// How a restoration network is recognised by the tensors of its checkpoint, and what is refused.
#include "src/models/common/checkpoint_keys.hpp"
#include "tests/models/restoration_support.hpp"

namespace ashlar {
namespace {

using test::Network;

Parameter number() {
  static const float value = 1;
  return {&value, DType::f32, {1}, nullptr};
}

// Without some tensors.
class Without : public Parameters {
 public:
  Without(const Parameters& of, std::string_view part) : of_(of), part_(part) {}
  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const std::string& name : of_.names())
      if (name.find(part_) == std::string::npos) all.push_back(name);
    return all;
  }
  bool find(std::string_view name, Parameter* into) const override {
    return name.find(part_) == std::string_view::npos && of_.find(name, into);
  }

 private:
  const Parameters& of_;
  std::string part_;
};

class RestorationCheckpoint : public testing::Test {
 protected:
  std::string refusal(const Value& config, const Parameters& weights,
                      const RestorationOptions& options = {}) {
    return test::refusal([&] { load_restoration_model(config, weights, exec_, options); });
  }
  CpuExec exec_;
  const Network& swinir_ = test::kNetworks[0];
  const Network& swin2sr_ = test::kNetworks[6];
};

TEST(CheckpointKeys, Match) {
  EXPECT_TRUE(matches("a.b", "a.b"));
  EXPECT_FALSE(matches("a.b", "a.b.c"));
  EXPECT_FALSE(matches("a.b.c", "a.b"));
  EXPECT_TRUE(matches("a.*.c", "a.17.c"));
  EXPECT_FALSE(matches("a.*.c", "a.1.2.c"));
  EXPECT_TRUE(matches("a.**", "a.1.2.c"));
  EXPECT_FALSE(matches("a.**", "b.1"));
  EXPECT_TRUE(matches("x|a.*|y", "a.b"));
  EXPECT_FALSE(matches("x|a.*|y", "z"));
}

TEST_F(RestorationCheckpoint, IsRecognised) {
  for (const Network& n : test::kNetworks)
    EXPECT_EQ(load_restoration_model(test::parsed(n.config), test::checkpoint(n, exec_), exec_)
                  ->info()
                  .architecture,
              n.architecture);
}

TEST_F(RestorationCheckpoint, BuffersOfTheAuthorsAreExcused) {
  ParameterMap weights = test::checkpoint(swinir_, exec_);
  weights.set("layers.0.residual_group.blocks.1.attn_mask", number());
  weights.set("layers.0.residual_group.blocks.1.attn.relative_position_index", number());
  load_restoration_model(test::parsed(swinir_.config), weights, exec_);
}

TEST_F(RestorationCheckpoint, OfAnotherArchitectureSaysWhatIsMissingAndUnexpected) {
  ParameterMap weights = test::checkpoint(swinir_, exec_);
  EXPECT_EQ(refusal({}, Without(weights, "mlp.fc2")),
            "checkpoint: it looks like SwinIR, but is not: missing "
            "\"layers.*.residual_group.blocks.*.mlp.fc2.weight\"");
  weights.set("layers.0.gate.weight", number());
  EXPECT_EQ(refusal({}, weights),
            "checkpoint: it looks like SwinIR, but is not: unexpected \"layers.0.gate.weight\"");
  const std::string looks = refusal({}, test::checkpoint(swin2sr_, exec_), {.architecture = "SwinIR"});
  EXPECT_TRUE(
      looks.starts_with("checkpoint: it is not of SwinIR: missing \"layers.*.residual_group.blocks.*.attn."
                        "relative_position_bias_table\"; unexpected \"layers.0."))
      << looks;
  EXPECT_TRUE(looks.ends_with("; it looks like Swin2SR")) << looks;
}

TEST_F(RestorationCheckpoint, OfNoNetworkForImages) {
  ParameterMap weights;
  weights.set("model.embed_tokens.weight", number());
  weights.set("model.layers.0.self_attn.q_proj.weight", number());
  const std::string sentence = refusal({}, weights);
  EXPECT_TRUE(sentence.starts_with(
      "checkpoint: its 2 tensors (\"model.embed_tokens.weight\", "
      "\"model.layers.0.self_attn.q_proj.weight\") are like those of no model for images"))
      << sentence;
  EXPECT_TRUE(refusal({}, ParameterMap()).starts_with("checkpoint: its 0 tensors"));
  EXPECT_TRUE(
      refusal({}, weights, {.architecture = "GAN"}).starts_with("architecture is \"GAN\", expected one of "));
}

TEST_F(RestorationCheckpoint, OfAClassifierIsNamed) {
  ParameterMap weights;
  for (const char* name :
       {"patch_embed.proj.weight", "patch_embed.norm.weight", "layers.0.blocks.0.norm1.weight",
        "layers.0.blocks.0.attn.relative_position_bias_table", "layers.0.blocks.0.attn.qkv.weight",
        "layers.0.blocks.0.attn.proj.weight", "layers.0.blocks.0.norm2.weight",
        "layers.0.blocks.0.mlp.fc1.weight", "layers.0.blocks.0.mlp.fc2.weight", "norm.weight", "head.weight"})
    weights.set(name, number());
  EXPECT_TRUE(refusal({}, weights).starts_with("checkpoint: it is of Swin, which does not restore images"));
}

TEST_F(RestorationCheckpoint, ThatContradictsTheConfiguration) {
  const ParameterMap weights = test::checkpoint(swinir_, exec_);
  const auto refused = [&](const char* changes) {
    return refusal(test::with(swinir_.config, changes), weights);
  };
  EXPECT_EQ(refused(R"({"embed_dim": 60})"),
            "config: \"embed_dim\" is 60, but the checkpoint has 20 (the first convolution)");
  EXPECT_EQ(refused(R"({"in_chans": 1})"),
            "config: \"in_chans\" is 1, but the checkpoint has 3 (the first convolution)");
  EXPECT_EQ(refused(R"({"depths": [2, 2]})"),
            "config: \"depths\" is 2 at 1, but the checkpoint has 1 (layers of its groups)");
  EXPECT_EQ(refused(R"({"depths": [2]})"),
            "config: \"depths\" is a list of 1, but the checkpoint has 2 (layers of its groups)");
  EXPECT_EQ(refused(R"({"num_heads": [5, 5]})"),
            "config: \"num_heads\" is 5 at 1, but the checkpoint has 2 (heads of its groups)");
  EXPECT_EQ(refused(R"({"window_size": 8})"),
            "config: \"window_size\" is 8, but the checkpoint has 4 (the window of its position bias)");
  EXPECT_EQ(refused(R"({"mlp_ratio": 2})"),
            "config: \"mlp_ratio\" is 2.000000 of 20, but the checkpoint has 34 (the width of its MLPs)");
  EXPECT_EQ(refused(R"({"upscale": 2})"),
            "config: \"upscale\" is 2, but the checkpoint has 4 (the head's tensors)");
  EXPECT_EQ(
      refused(R"({"upsampler": "nearest+conv"})"),
      "config: \"upsampler\" is \"nearest+conv\", but the checkpoint has the tensors of \"pixelshuffle\"");
  EXPECT_EQ(refused(R"({"resi_connection": "3conv"})"),
            "config: \"resi_connection\" is \"3conv\", but the checkpoint's \"conv_after_body\" is not so");
  EXPECT_EQ(refused(R"({"num_feat": 64})"),
            "config: \"num_feat\" is 64, but the checkpoint has 6 (the head's first convolution)");
  EXPECT_EQ(
      refused(R"({"img_size": 3})"),
      "config: images of training have 3 pixels, but the checkpoint has a position bias for windows of 4");
}

TEST_F(RestorationCheckpoint, WithSettingsThatHaveNoImplementation) {
  const ParameterMap weights = test::checkpoint(swinir_, exec_);
  for (const char* changes :
       {R"({"ape": true})", R"({"patch_size": 2})", R"({"patch_norm": false})", R"({"qk_scale": 0.5})",
        R"({"qkv_bias": false})", R"({"upsampler": "pixelshuffle_hf"})", R"({"resi_connection": "5conv"})"})
    try {
      load_restoration_model(test::with(swinir_.config, changes), weights, exec_);
      ADD_FAILURE() << changes << " was not refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), "UnsupportedConfig") << changes << ": " << e.what();
    }
  for (const char* changes : {R"({"img_range": 0})", R"({"depths": 2})", R"({"depths": [0, 1]})",
                              R"({"num_heads": "six"})", R"({"mlp_ratio": -1})", R"({"window_size": 0})"})
    try {
      load_restoration_model(test::with(swinir_.config, changes), weights, exec_);
      ADD_FAILURE() << changes << " was not refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), "InvalidConfig") << changes << ": " << e.what();
    }
}

TEST_F(RestorationCheckpoint, ThatDoesNotTellItsWindow) {
  const ParameterMap weights = test::checkpoint(swin2sr_, exec_);
  EXPECT_EQ(
      refusal({}, weights),
      "config: \"window_size\" is missing, and the checkpoint does not tell it (the window of its position "
      "bias)");
}

TEST_F(RestorationCheckpoint, WithTensorsOfOtherShapes) {
  ParameterMap weights = test::checkpoint(swinir_, exec_);
  Parameter p = weights.at("norm.weight");
  p.shape = {2, 10};
  weights.set("norm.weight", p);
  EXPECT_EQ(refusal({}, weights), "checkpoint: tensor \"norm.weight\" has shape [2, 10], expected [20]");
  weights = test::checkpoint(swinir_, exec_);
  weights.set("conv_first.weight", number());
  EXPECT_EQ(refusal({}, weights), "checkpoint: tensor \"conv_first.weight\" has 1 axes, expected at least 2");
  EXPECT_EQ(refusal({}, Without(test::checkpoint(swinir_, exec_), "layers.0.residual_group")),
            "checkpoint: it has 0 (layers of its groups), expected from 1 to 1048576");
  weights = test::checkpoint(swinir_, exec_);
  weights.set("conv_first.weight", {nullptr, DType::f32, {Index{1} << 40, 0, 3, 3}, nullptr});
  EXPECT_EQ(refusal({}, weights),
            "checkpoint: it has 1099511627776 (the first convolution), expected from 1 to 1048576");
  weights = test::checkpoint(swinir_, exec_);
  weights.set("layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
              {nullptr, DType::f32, {48, 5}, nullptr});
  EXPECT_EQ(refusal({}, weights),
            "checkpoint: a table of relative positions has 48 rows, expected the square of an odd number");
}

}  // namespace
}  // namespace ashlar
