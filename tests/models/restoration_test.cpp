// SPDX-License-Identifier: Apache-2.0
// What holds for every restoration network: any size, any number of threads, any batch, what is refused.
#include "ashlar/models/restoration_net.hpp"
#include "ashlar/ops/pad2d.hpp"
#include "tests/models/restoration_support.hpp"

namespace ashlar {
namespace {

using test::Network;

std::unique_ptr<RestorationModel<CpuExec>> loaded(const Network& n, CpuExec& exec,
                                                  const RestorationOptions& options = {}) {
  return load_restoration_model(test::parsed(n.config), test::checkpoint(n, exec), exec, options);
}

class Restoration : public testing::TestWithParam<Network> {};
INSTANTIATE_TEST_SUITE_P(All, Restoration, testing::ValuesIn(test::kNetworks),
                         [](const auto& info) { return info.param.name; });

// From 1 x 1, which is repeated, to sizes that the window divides.
TEST_P(Restoration, TakesAnySizeOnAnyNumberOfThreads) {
  CpuExec one(CpuOptions{1}), two(CpuOptions{2});
  const auto model = loaded(GetParam(), one);
  EXPECT_EQ(model->info().architecture, GetParam().architecture);
  const Index sizes[][2] = {{1, 1}, {1, 6}, {2, 3}, {13, 11}, {3, 20}, {20, 15}};
  for (const auto& [height, width] : sizes) {
    const auto image = test::random_image(1, height, width, model->info().in_channels);
    EXPECT_TRUE(test::same_bits(test::restored(*model, image, one), test::restored(*model, image, two)));
  }
}

TEST_P(Restoration, OneImageDoesNotSeeTheOthers) {
  CpuExec exec;
  const auto model = loaded(GetParam(), exec);
  const auto batch = test::random_image(3, 9, 7, model->info().in_channels);
  const auto all = test::restored(*model, batch, exec);
  for (Index n = 0; n < 3; ++n) {
    Tensor<float, 4> single({1, 9, 7, model->info().in_channels});
    std::copy_n(batch.view().at(n), single.size(), single.data());
    const auto alone = test::restored(*model, single, exec);
    EXPECT_TRUE(std::equal(alone.data(), alone.data() + alone.size(), all.view().at(n)));
  }
}

TEST_P(Restoration, ReadsStridedImagesAndWritesNothingElse) {
  CpuExec exec;
  const auto model = loaded(GetParam(), exec);
  const Index channels = model->info().in_channels, outs = model->info().out_channels, s = model->scale();
  test::Array<4> image({2, 6, 5, channels}), out({2, 6 * s, 5 * s, outs});
  std::mt19937 rng(3);
  image.uniform(rng, 0, 1);
  out.poison();
  model->run(image.cview(), out.view(), exec);
  Tensor<float, 4> packed({2, 6, 5, channels});
  for (Index n = 0; n < 2; ++n)
    for (Index h = 0; h < 6; ++h)
      for (Index w = 0; w < 5; ++w)
        for (Index c = 0; c < channels; ++c) packed.view()(n, h, w, c) = image.view()(n, h, w, c);
  const auto want = test::restored(*model, packed, exec);
  for (Index n = 0; n < 2; ++n)
    for (Index h = 0; h < 6 * s; ++h)
      for (Index w = 0; w < 5 * s; ++w)
        for (Index c = 0; c < outs; ++c) EXPECT_EQ(out.view()(n, h, w, c), want.view()(n, h, w, c));
}

// A network on an image of whole windows, cropped, is what run() does with a ragged one.
TEST_P(Restoration, PadsByReflectionOrWithTheEdgeRepeated) {
  CpuExec exec;
  for (RaggedImage ragged : {RaggedImage::reflect, RaggedImage::symmetric}) {
    const auto model = loaded(GetParam(), exec, {.ragged = ragged});
    const Index multiple = model->info().multiple, channels = model->info().in_channels, s = model->scale();
    const Index height = 2 * multiple, width = 2 * multiple - 1;
    const Index more = ragged == RaggedImage::symmetric ? multiple : 0;
    EXPECT_EQ(model->padded({height, width}), (std::array<Index, 2>{height + more, 2 * multiple}));
    const auto image = test::random_image(1, height, width, channels);
    Tensor<float, 4> wider({1, height + more, 2 * multiple, channels});
    pad2d(Pad2d{image.view(), wider.view(), more != 0 ? PadMode::symmetric : PadMode::reflect}, exec);
    Tensor<float, 4> want({1, s * height, s * width, model->info().out_channels});
    model->forward(wider.view(), want.view(), exec);
    EXPECT_TRUE(test::same_bits(test::restored(*model, image, exec), want));
  }
}

// What the configuration says can be read off the checkpoint; Swin2SR's window is in buffers only.
TEST_P(Restoration, InfersItsShape) {
  CpuExec exec;
  const ParameterMap weights = test::checkpoint(GetParam(), exec);
  const auto given = load_restoration_model(test::parsed(GetParam().config), weights, exec);
  Value::Object rest;
  const Value config = test::parsed(GetParam().config);
  for (const char* key : {"img_range", "window_size"})
    if (const Value* v = config.find(key);
        v != nullptr && (key != std::string_view("window_size") || given->info().architecture == "Swin2SR"))
      rest.emplace_back(key, *v);
  const auto inferred = load_restoration_model(rest, weights, exec);
  EXPECT_EQ(inferred->info().parameters, given->info().parameters);
  EXPECT_EQ(inferred->info().multiple, given->info().multiple);
  EXPECT_EQ(inferred->scale(), given->scale());
  const auto image = test::random_image(1, 5, 8, given->info().in_channels);
  EXPECT_TRUE(test::same_bits(test::restored(*given, image, exec), test::restored(*inferred, image, exec)));
}

TEST_P(Restoration, EstimatesItsMemory) {
  CpuExec exec;
  const auto model = loaded(GetParam(), exec);
  const Index small = model->scratch_bytes({20, 20}), large = model->scratch_bytes({40, 40});
  EXPECT_GT(small, 0);
  EXPECT_GT(large, 2 * small);
}

TEST(RestorationModel, RefusesWhatDoesNotFit) {
  CpuExec exec;
  const auto model = loaded(test::kNetworks[0], exec);
  const auto refused = [&](std::array<Index, 4> in, std::array<Index, 4> out) {
    Tensor<float, 4> x(in), y(out);
    return test::refusal([&] { model->run({x.data(), in}, {y.data(), out}, exec); });
  };
  EXPECT_EQ(refused({1, 4, 4, 1}, {1, 16, 16, 3}),
            "SwinIR: image has shape [1, 4, 4, 1], expected [1, 4, 4, 3]");
  EXPECT_EQ(refused({1, 4, 4, 3}, {1, 16, 12, 3}),
            "SwinIR: out has shape [1, 16, 12, 3], expected [1, 16, 16, 3]");
  EXPECT_EQ(refused({1, 0, 4, 3}, {1, 0, 16, 3}),
            "SwinIR: image has shape [1, 0, 4, 3], expected at least one pixel");
}

// Released networks against JPEG artifacts have windows of 7 and count to 255.
TEST(RestorationModel, KnowsTheRangeOfReleasedNetworks) {
  CpuExec exec;
  const ParameterMap weights = test::checkpoint(test::kNetworks[5], exec);
  const auto image = test::random_image(1, 7, 7, 1);
  const auto a = load_restoration_model({}, weights, exec),
             b = load_restoration_model(test::parsed(R"({"img_range": 255})"), weights, exec),
             c = load_restoration_model(test::parsed(R"({"img_range": 1})"), weights, exec);
  const auto out = test::restored(*a, image, exec);
  EXPECT_TRUE(test::same_bits(out, test::restored(*b, image, exec)));
  EXPECT_FALSE(test::same_bits(out, test::restored(*c, image, exec)));
}

// Trained on images of one window: not shifted, and the image is still padded to the window of the settings.
TEST(RestorationModel, ClipsWindowsToTheImagesOfTraining) {
  CpuExec exec;
  const Network& n = test::kNetworks[0];
  const ParameterMap weights = test::checkpoint(n, exec);
  const auto image = test::random_image(1, 8, 8, 3);
  const auto shifted = load_restoration_model(test::with(n.config, R"({"img_size": 5})"), weights, exec),
             whole = load_restoration_model(test::with(n.config, R"({"img_size": 4})"), weights, exec),
             clipped = load_restoration_model(
                 test::with(n.config, R"({"img_size": [4, 9], "window_size": 8})"), weights, exec);
  const auto out = test::restored(*whole, image, exec);
  EXPECT_FALSE(test::same_bits(out, test::restored(*shifted, image, exec)));
  EXPECT_TRUE(test::same_bits(out, test::restored(*clipped, image, exec)));
  EXPECT_EQ(clipped->info().multiple, 8);
}

struct Released {
  const char *name, *architecture, *config;
  double millions;
  bool runs = false;
};
constexpr Released kReleased[] = {
    {"SwinIR classical x4", "SwinIR",
     R"({"embed_dim": 180, "depths": [6, 6, 6, 6, 6, 6], "num_heads": [6, 6, 6, 6, 6, 6],
      "window_size": 8, "mlp_ratio": 2, "upscale": 4, "upsampler": "pixelshuffle", "img_size": 48})",
     11.90},
    {"SwinIR lightweight x4", "SwinIR",
     R"({"embed_dim": 60, "depths": [6, 6, 6, 6], "num_heads": [6, 6, 6, 6],
      "window_size": 8, "mlp_ratio": 2, "upscale": 4, "upsampler": "pixelshuffledirect", "img_size": 64})",
     0.93, true},
    {"SwinIR real-world L x4", "SwinIR", R"({"embed_dim": 240, "depths": [6, 6, 6, 6, 6, 6, 6, 6, 6],
      "num_heads": [8, 8, 8, 8, 8, 8, 8, 8, 8], "window_size": 8, "mlp_ratio": 2, "upscale": 4,
      "upsampler": "nearest+conv", "resi_connection": "3conv", "img_size": 64})",
     28.0, true},
    {"SwinIR denoising", "SwinIR",
     R"({"embed_dim": 180, "depths": [6, 6, 6, 6, 6, 6], "num_heads": [6, 6, 6, 6, 6, 6],
      "window_size": 8, "mlp_ratio": 2, "upscale": 1, "upsampler": "", "in_chans": 1, "img_size": 128})",
     11.5},
    {"Swin2SR classical x4", "Swin2SR", R"({"embed_dim": 180, "depths": [6, 6, 6, 6, 6, 6],
      "num_heads": [6, 6, 6, 6, 6, 6], "window_size": 8, "mlp_ratio": 2, "upscale": 4, "upsampler": "pixelshuffle",
      "img_size": 48})",
     12.24},
};

TEST(RestorationModel, HasTheReleasedConfigurations) {
  CpuExec exec;
  for (const Released& r : kReleased) {
    const bool v2 = std::string_view(r.architecture) == "Swin2SR";
    const RandomParameters weights(DType::f32, 1,
                                   [&](std::string_view name) { return v2 || !name.ends_with("q_bias"); });
    const auto model =
        load_restoration_model(test::parsed(r.config), weights, exec, {.architecture = r.architecture});
    EXPECT_NEAR(static_cast<double>(model->info().parameters) / 1e6, r.millions,
                r.millions > 10 ? 0.06 : 0.006)
        << r.name;
    if (r.runs) test::restored(*model, test::random_image(1, 8, 8, model->info().in_channels), exec);
  }
}

}  // namespace
}  // namespace ashlar
