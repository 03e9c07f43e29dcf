// SPDX-License-Identifier: Apache-2.0
// The bundled model on the bundled picture, and pictures of every kind.
#include "ashlar/io/restore_image.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ashlar/core/tensor.hpp"
#include "tests/io/files.hpp"

namespace ashlar {
namespace {

using Model = RestorationModel<CpuExec>;

std::string example(std::string_view name) { return concat(ASHLAR_EXAMPLES, "/", name); }

std::unique_ptr<Model> bundled() {
  CpuExec exec;
  return open_restoration_model(example("models/swinir-light-x2.safetensors"), exec);
}

Image some(Index height, Index width, Index channels, int depth) {
  Image image = make_image(height, width, channels, depth);
  for (std::size_t i = 0; i < image.bytes.size(); ++i)
    image.bytes[i] = static_cast<std::uint8_t>(i * 53 + i / 7 * 11);
  return image;
}

// Channels [first, first + count) of an image as one.
Image channels_of(const Image& image, Index first, Index count) {
  Image out = make_image(image.height, image.width, count, image.depth);
  std::vector<float> floats(static_cast<std::size_t>(image.height * image.width * count));
  const View<float, 3> view{floats.data(), {image.height, image.width, count}};
  image_to_floats(image, first, view);
  floats_to_image(view, 0, out);
  return out;
}

// The bundled picture through the bundled model, as one tile.
const Tensor<float, 4>& whole() {
  static const Tensor<float, 4> result = [] {
    CpuExec exec;
    const Image in = read_image(example("images/raccoon.png"));
    Tensor<float, 4> image({1, in.height, in.width, 3}), out({1, 2 * in.height, 2 * in.width, 3});
    image_to_floats(in, 0, image.view()[0]);
    restore_tiled(*bundled(), image.view(), out.view(), {}, exec);
    return out;
  }();
  return result;
}

TEST(RestoreImage, OpensCheckpointsAsTheyAre) {
  CpuExec exec;
  EXPECT_EQ(bundled()->info().architecture, "SwinIR");
  const std::string hat = concat(ASHLAR_GOLDENS, "/hat.pth");
  EXPECT_EQ(open_restoration_model(hat, exec)->info().architecture, "HAT");
  EXPECT_EQ(open_restoration_model(hat, exec, R"({"img_range": 255})", "params_ema")->scale(), 2);
  EXPECT_THROW(open_restoration_model(hat, exec, R"({"upscale": 3})"), Error);
  EXPECT_THROW(open_restoration_model(hat, exec, {}, "params"), Error);
  EXPECT_THROW(open_restoration_model(example("images/raccoon.png"), exec), Error);
}

TEST(RestoreImage, TheBundledModelHasItsNumbers) {
  CpuExec exec;
  const Image in = read_image(example("images/raccoon.png")),
              truth = read_image(example("images/raccoon-hr.png"));
  Image out = make_image(truth.height, truth.width, 3, 8);
  floats_to_image(whole().view()[0], 0, out);
  EXPECT_NEAR(psnr(out, truth), 27.25, 0.02);
  EXPECT_NEAR(psnr(resize_image(in, 2, Enlargement::bicubic, exec), truth), 25.88, 0.02);
}

TEST(RestoreImage, TilesAgreeAwayFromSeams) {
  CpuExec exec;
  const auto model = bundled();
  const Image in = read_image(example("images/raccoon.png"));
  const TileOptions options{.tile = 64, .overlap = 16};
  const Image out = restore_image(*model, in, options, exec);
  const TileShape shape = tile_shape(model->info(), {in.height, in.width}, options);
  Tensor<float, 4> parts(whole().shape());
  image_to_floats(out, 0, parts.view()[0]);
  const auto overlapped = [&](Index at, Index extent, Index tile) {
    for (const TileSpan& s : tile_spans(extent, tile, shape.overlap))
      if (s.begin > 0 && at >= s.begin && at < s.begin + shape.overlap) return true;
    return false;
  };
  double outside = 0, inside = 0;
  Index compared = 0;
  for (Index y = 0; y < parts.shape()[1]; ++y)
    for (Index x = 0; x < parts.shape()[2]; ++x) {
      const bool seam =
          overlapped(y / 2, in.height, shape.rows) || overlapped(x / 2, in.width, shape.columns);
      compared += seam ? 0 : 1;
      for (Index c = 0; c < 3; ++c) {
        const double want = std::clamp(static_cast<double>(whole().view()(0, y, x, c)), 0.0, 1.0);
        double& worst = seam ? inside : outside;
        worst = std::max(worst, std::abs(static_cast<double>(parts.view()(0, y, x, c)) - want));
      }
    }
  EXPECT_GT(compared, parts.shape()[1] * parts.shape()[2] / 3);
  EXPECT_LT(outside, 1e-3 + 0.5 / 255);  // the picture has 8 bits
  EXPECT_LT(inside, 0.02);
}

TEST(RestoreImage, TakesEveryKindAndSize) {
  CpuExec exec({1}), two({2});
  const auto model = bundled();
  struct Kind {
    Index height, width, channels;
    int depth;
  };
  for (const auto& [height, width, channels, depth] :
       {Kind{1, 1, 4, 8}, Kind{1, 9, 1, 16}, Kind{13, 11, 1, 8}, Kind{13, 11, 2, 16}, Kind{13, 11, 3, 16},
        Kind{13, 11, 4, 8}}) {
    const Image in = some(height, width, channels, depth);
    const Image out = restore_image(*model, in, {.tile = 8}, exec);
    EXPECT_EQ(out.height, 2 * height);
    EXPECT_EQ(out.width, 2 * width);
    EXPECT_EQ(out.channels, channels);
    EXPECT_EQ(out.depth, depth);
    EXPECT_EQ(restore_image(*model, in, {.tile = 8}, two).bytes, out.bytes);
    if (!in.has_alpha()) continue;
    const Index colours = in.colours();
    const Image opaque = restore_image(*model, channels_of(in, 0, colours), {.tile = 8}, exec);
    EXPECT_EQ(channels_of(out, 0, colours).bytes, opaque.bytes);
    const Image alpha = resize_image(channels_of(in, colours, 1), 2, Enlargement::bicubic, exec);
    EXPECT_EQ(channels_of(out, colours, 1).bytes, alpha.bytes);
  }
}

TEST(RestoreImage, AGrayPictureIsThreeEqualChannels) {
  CpuExec exec;
  const auto model = bundled();
  const Image gray = some(16, 16, 1, 16);
  std::vector<float> floats(16 * 16 * 3);
  for (Index c = 0; c < 3; ++c)
    image_to_floats(gray, 0, View<float, 3>(floats.data() + c, {16, 16, 1}, {48, 3, 1}));
  Tensor<float, 4> out({1, 32, 32, 3});
  model->run(View<float, 4>(floats.data(), {1, 16, 16, 3}), out.view(), exec);
  const Image got = restore_image(*model, gray, {}, exec);
  std::vector<float> back(32 * 32);
  image_to_floats(got, 0, {back.data(), {32, 32, 1}});
  for (Index i = 0; i < 32 * 32; ++i) {
    const float mean = (out.data()[3 * i] + out.data()[3 * i + 1] + out.data()[3 * i + 2]) / 3;
    EXPECT_NEAR(back[static_cast<std::size_t>(i)], std::clamp(mean, 0.0f, 1.0f), 1e-5);
  }
}

TEST(ResizeImage, IsTheSameInBands) {  // 32 rows are a band: a longer picture's middle is a shorter one's
  CpuExec exec;
  const Image tall = some(80, 5, 2, 8);
  Image part = make_image(24, 5, 2, 8);
  std::copy_n(tall.bytes.begin() + 20 * 10, part.bytes.size(), part.bytes.begin());
  for (const Enlargement how : {Enlargement::nearest, Enlargement::bicubic})
    for (const Index scale : {1, 2, 3, 4}) {
      const Image whole = resize_image(tall, scale, how, exec), middle = resize_image(part, scale, how, exec);
      const Index row = 5 * scale * 2;
      for (Index y = 3 * scale; y < 21 * scale; ++y)
        ASSERT_TRUE(std::equal(middle.bytes.begin() + y * row, middle.bytes.begin() + (y + 1) * row,
                               whole.bytes.begin() + (y + 20 * scale) * row))
            << scale << ", row " << y;
      if (scale == 1) {
        EXPECT_EQ(whole.bytes, tall.bytes);
      }
    }
}

TEST(Psnr, IsOfAllChannels) {
  const Image a = some(3, 4, 3, 8);
  EXPECT_EQ(psnr(a, a), std::numeric_limits<double>::infinity());
  Image b = a;
  b.bytes[5] = static_cast<std::uint8_t>(b.bytes[5] ^ 0xff);
  const double d = (a.bytes[5] - b.bytes[5]) / 255.0;
  EXPECT_NEAR(psnr(a, b), 10 * std::log10(36 / (d * d)), 1e-4);
  EXPECT_EQ(test::kind([&] { psnr(a, some(3, 4, 1, 8)); }), "InvalidArgument");
}

}  // namespace
}  // namespace ashlar
