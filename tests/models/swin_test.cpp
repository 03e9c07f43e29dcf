// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/swin.hpp"

#include "tests/models/restoration_support.hpp"

namespace ashlar {
namespace {

constexpr const char* kV1 =
    R"({"img_size": 24, "patch_size": 2, "in_chans": 3, "num_classes": 5, "embed_dim": 8,
  "depths": [2, 2], "num_heads": [2, 4], "window_size": 6, "mlp_ratio": 1.5})";
constexpr const char* kV2 = R"({"model_type": "swinv2", "img_size": 24, "patch_size": 2, "in_chans": 3,
  "num_classes": 5, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 4], "window_size": 6, "mlp_ratio": 1.5,
  "pretrained_window_sizes": [4, 3]})";

ParameterMap swin_checkpoint(const char* config, CpuExec& exec) {
  ParameterMap map;
  test::RecordedParameters recorded(map);
  if (std::string_view(config).find("swinv2") != std::string_view::npos) recorded.v2();
  load_swin(test::parsed(config), recorded, exec);
  return map;
}

Tensor<float, 2> logits_of(const SwinTransformer<CpuExec>& model, const Tensor<float, 4>& image,
                           CpuExec& exec) {
  Tensor<float, 2> logits({image.shape()[0], model.outputs()});
  model(image.view(), logits.view(), exec);
  return logits;
}

TEST(Swin, WindowsAreNoLargerThanTheImageOfAStage) {
  CpuExec exec;
  const ParameterMap weights = swin_checkpoint(kV1, exec);
  const SwinConfig c = SwinConfig::from(test::parsed(kV1), weights);
  EXPECT_EQ(c.resolution(0), 12);
  EXPECT_EQ(c.block(0, 1).attention.branches[0].shift[0], 3);
  EXPECT_EQ(c.block(0, 0).attention.branches[0].shift[0], 0);
  EXPECT_EQ(c.block(1, 1).attention.branches[0].shift[0], 0);  // one window holds the image
  const SwinConfig small =
      SwinConfig::from(test::with(kV1, R"({"img_size": 48, "window_size": 6})"), weights);
  EXPECT_EQ(small.block(1, 1).attention.branches[0].shift[0], 3);
  const char* wide = R"({"img_size": 16, "patch_size": 2, "num_classes": 3, "embed_dim": 4, "depths": [1, 1],
    "num_heads": [1, 2], "window_size": 8})";
  EXPECT_EQ(SwinConfig::from(test::parsed(wide), RandomParameters(DType::f32))
                .block(1, 0)
                .attention.branches[0]
                .window[0],
            4);
}

TEST(Swin, DoesNotDependOnThreadsOrOtherImages) {
  CpuExec one(CpuOptions{1}), two(CpuOptions{2});
  const auto images = test::random_image(3, 24, 24, 3);
  for (const char* config : {kV1, kV2}) {
    const auto model = load_swin(test::parsed(config), swin_checkpoint(config, one), one);
    const auto all = logits_of(*model, images, one), again = logits_of(*model, images, two);
    EXPECT_TRUE(std::equal(all.data(), all.data() + all.size(), again.data()));
    for (Index n = 0; n < 3; ++n) {
      Tensor<float, 4> single({1, 24, 24, 3});
      std::copy_n(images.view().at(n), single.size(), single.data());
      const auto alone = logits_of(*model, single, one);
      EXPECT_TRUE(std::equal(alone.data(), alone.data() + 5, all.view().at(n)));
    }
  }
}

TEST(Swin, WithoutAHeadGivesItsFeatures) {
  CpuExec exec;
  const ParameterMap weights = swin_checkpoint(kV1, exec);
  ParameterMap headless;
  for (const std::string& name : weights.names())
    if (!name.starts_with("head.")) headless.set(name, weights.at(name));
  const auto model = load_swin(test::parsed(kV1), headless, exec);
  EXPECT_EQ(model->outputs(), 16);
  const auto features = logits_of(*model, test::random_image(1, 24, 24, 3), exec);
  for (Index i = 0; i < 16; ++i) EXPECT_TRUE(std::isfinite(features.data()[i]));
}

TEST(Swin, PretrainedWindowsChangeThePositions) {
  CpuExec exec;
  const ParameterMap weights = swin_checkpoint(kV2, exec);
  const auto image = test::random_image(1, 24, 24, 3);
  const auto a = load_swin(test::parsed(kV2), weights, exec),
             b = load_swin(test::with(kV2, R"({"pretrained_window_sizes": [0, 0]})"), weights, exec);
  EXPECT_NE(logits_of(*a, image, exec).data()[0], logits_of(*b, image, exec).data()[0]);
}

TEST(Swin, RefusesWhatDoesNotFit) {
  CpuExec exec;
  const ParameterMap weights = swin_checkpoint(kV1, exec);
  const auto refused = [&](const char* changes) {
    return test::refusal([&] { load_swin(test::with(kV1, changes), weights, exec); });
  };
  EXPECT_EQ(refused(R"({"num_classes": 7})"),
            "config: \"num_classes\" is 7, but the checkpoint has 5 (the head)");
  EXPECT_EQ(refused(R"({"window_size": 4})"), "config: windows of 4 in stage 0, but the checkpoint has 6");
  EXPECT_EQ(refused(R"({"img_size": 26})"), "config: images of 26 pixels have an odd side in stage 0");
  EXPECT_EQ(refused(R"({"img_size": 28})"), "config: windows of 6 do not divide the 14 patches of stage 0");
  EXPECT_EQ(refused(R"({"img_size": 25})"),
            "config: \"img_size\" is 25, expected a multiple of 2 that 2 stages can halve");
  EXPECT_EQ(refused(R"({"pretrained_window_sizes": [4]})"),
            "config: \"pretrained_window_sizes\" is not a list with an entry for each stage");
  const auto model = load_swin(test::parsed(kV1), weights, exec);
  Tensor<float, 4> image({1, 12, 24, 3});
  Tensor<float, 2> logits({1, 5});
  EXPECT_EQ(test::refusal([&] { (*model)(image.view(), logits.view(), exec); }),
            "Swin: image has shape [1, 12, 24, 3], expected [1, 24, 24, 3]");
}

}  // namespace
}  // namespace ashlar
