// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/tiled_restoration.hpp"

#include <cmath>
#include <random>

#include "tests/support.hpp"

namespace ashlar {
namespace {

// Enlarges by 2: each of four pixels is the mean of the 3 x 3 around its own (outside the image: the border),
// plus a number that tells the four apart, and one that tells where in a window of 4 x 4 it is.
class Toy : public RestorationModel<CpuExec> {
 public:
  explicit Toy(Index channels = 2, Index multiple = 4)
      : RestorationModel({.architecture = "toy",
                          .scale = 2,
                          .in_channels = channels,
                          .out_channels = channels,
                          .multiple = multiple,
                          .smallest = multiple,
                          .floats_per_pixel = 50}) {}
  void forward(View<const float, 4> image, View<float, 4> out, CpuExec& exec) const override {
    largest = std::max(largest, image.shape[1] * image.shape[2]);
    const auto [images, height, width, channels] = image.shape;
    exec.parallel_for(images * height, [&](Index task, int) {
      const Index n = task / image.shape[1], y = task % image.shape[1];
      for (Index x = 0; x < image.shape[2]; ++x)
        for (Index c = 0; c < image.shape[3]; ++c) {
          float sum = 0.1f * static_cast<float>(y % 4) + 0.05f * static_cast<float>(x % 4);
          for (Index dy = -1; dy <= 1; ++dy)
            for (Index dx = -1; dx <= 1; ++dx)
              sum += image(n, std::clamp<Index>(y + dy, 0, image.shape[1] - 1),
                           std::clamp<Index>(x + dx, 0, image.shape[2] - 1), c) /
                     9;
          for (Index k = 0; k < 4; ++k) {
            const Index oy = 2 * y + k / 2, ox = 2 * x + k % 2;
            if (oy < out.shape[1] && ox < out.shape[2])
              out(n, oy, ox, c) = sum + 0.125f * static_cast<float>(k);
          }
        }
    });
  }
  mutable Index largest = 0;  // image that the network saw
};

// Symmetric under rotations and reflections, but for its second channel, which falls from the top.
class Symmetric : public RestorationModel<CpuExec> {
 public:
  Symmetric()
      : RestorationModel({.architecture = "symmetric", .scale = 1, .in_channels = 2, .out_channels = 2}) {}
  void forward(View<const float, 4> image, View<float, 4> out, CpuExec&) const override {
    for (Index y = 0; y < out.shape[1]; ++y)
      for (Index x = 0; x < out.shape[2]; ++x) {
        out(0, y, x, 0) = 2 * image(0, y, x, 0);
        out(0, y, x, 1) = image(0, y, x, 1) + static_cast<float>(y + 1);
      }
  }
};

Tensor<float, 4> random_image(Index n, Index h, Index w, Index c) {
  Tensor<float, 4> image({n, h, w, c});
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(0, 1);
  for (Index i = 0; i < image.size(); ++i) image.data()[i] = uniform(random);
  return image;
}

Tensor<float, 4> tiled(const RestorationModel<CpuExec>& model, const Tensor<float, 4>& image,
                       const TileOptions& options, int threads = 1) {
  CpuExec exec({threads});
  const Index s = model.scale();
  Tensor<float, 4> out(
      {image.shape()[0], image.shape()[1] * s, image.shape()[2] * s, model.info().out_channels});
  std::fill_n(out.data(), out.size(), std::nanf(""));
  restore_tiled(model, image.view(), out.view(), options, exec);
  return out;
}

TEST(TiledRestoration, SpansCoverTheAxis) {
  for (const Index extent : {1, 7, 8, 9, 16, 23, 24, 25, 100})
    for (const Index tile : {8, 16, 24})
      for (const Index overlap : {0, 4, 8}) {
        if (overlap > tile / 2) continue;
        const auto spans = tile_spans(extent, tile, overlap);
        EXPECT_EQ(spans.front().begin, 0);
        EXPECT_EQ(spans.back().end, extent);
        for (std::size_t i = 1; i < spans.size(); ++i) {
          EXPECT_EQ(spans[i].begin, spans[i - 1].end - overlap);
          EXPECT_GT(spans[i].end - spans[i].begin, overlap);
          EXPECT_EQ(spans[i].begin % (tile - overlap), 0);
        }
      }
}

TEST(TiledRestoration, AgreesWithTheWholeImageAwayFromSeams) {
  const Toy model;
  for (const auto& [h, w] : {std::pair<Index, Index>{1, 1}, {13, 11}, {40, 33}, {17, 64}, {64, 8}}) {
    const Tensor<float, 4> image = random_image(2, h, w, 2);
    const Tensor<float, 4> whole = tiled(model, image, {});
    for (const Index tile : {8, 12, 16, 30})
      for (const Index overlap : {0, 4, 7, 100}) {
        const TileOptions options{.tile = tile, .overlap = overlap};
        const TileShape shape = tile_shape(model.info(), {h, w}, options);
        const Tensor<float, 4> parts = tiled(model, image, options);
        const auto near_seam = [&](Index at, Index extent, Index side) {
          for (const TileSpan& s : tile_spans(extent, side, shape.overlap))
            if ((s.begin > 0 && at / 2 == s.begin) || (s.end < extent && at / 2 == s.end - 1)) return true;
          return false;
        };
        for (Index y = 0; y < 2 * h; ++y)
          for (Index x = 0; x < 2 * w; ++x)
            for (Index c = 0; c < 2; ++c) {
              const float a = parts.view()(1, y, x, c), b = whole.view()(1, y, x, c);
              if (near_seam(y, h, shape.rows) || near_seam(x, w, shape.columns))
                EXPECT_NEAR(a, b, 1) << "not written";
              else
                ASSERT_NEAR(a, b, 1e-6) << h << " x " << w << ", tile " << tile << ", overlap " << overlap;
            }
      }
  }
}

TEST(TiledRestoration, MemoryAndTheNetworksImageAreBoundedByTheTile) {
  const Toy model;
  const Tensor<float, 4> image = random_image(1, 100, 90, 2);
  tiled(model, image, {.tile = 16, .overlap = 4});
  EXPECT_EQ(model.largest, 16 * 16);
  const std::array<Index, 2> size{1000, 800};
  const Index small = tiled_bytes(model, size, {.tile = 16}), large = tiled_bytes(model, size, {.tile = 64});
  EXPECT_LT(small, large);
  EXPECT_LT(large, tiled_bytes(model, size, {}));
  const Index tile = largest_tile(model, size, large);
  EXPECT_GE(tile, 64);
  EXPECT_LE(tiled_bytes(model, size, {.tile = tile}), large);
  EXPECT_GT(tiled_bytes(model, size, {.tile = tile + 4}), large);
  EXPECT_EQ(largest_tile(model, size, Index{1} << 40), 0);
  EXPECT_EQ(largest_tile(model, size, 0), 4);
}

TEST(TiledRestoration, ThreadsDoNotChangeTheResult) {
  const Toy model;
  const Tensor<float, 4> image = random_image(1, 37, 41, 2);
  const TileOptions options{.tile = 16, .overlap = 4, .self_ensemble = true};
  const Tensor<float, 4> one = tiled(model, image, options, 1), two = tiled(model, image, options, 2);
  for (Index i = 0; i < one.size(); ++i) ASSERT_EQ(one.data()[i], two.data()[i]);
}

TEST(TiledRestoration, SelfEnsembleIsTheMeanOfEightTurns) {
  const Symmetric model;
  const Index h = 5, w = 3;
  const Tensor<float, 4> image = random_image(1, h, w, 2);
  const Tensor<float, 4> out = tiled(model, image, {.self_ensemble = true});
  for (Index y = 0; y < h; ++y)
    for (Index x = 0; x < w; ++x) {
      EXPECT_NEAR(out.view()(0, y, x, 0), 2 * image.view()(0, y, x, 0), 1e-6);
      // Rows from the top and from the bottom, columns from the left and from the right, each twice.
      const float mean = (static_cast<float>(h + 1) + static_cast<float>(w + 1)) / 4;
      EXPECT_NEAR(out.view()(0, y, x, 1), image.view()(0, y, x, 1) + mean, 1e-5);
    }
}

TEST(TiledRestoration, ReportsProgressAndWritesRowsOnce) {
  const Toy model;
  CpuExec exec({1});
  Index last = -1, whole = 0, next = 0;
  const TileOptions options{.tile = 8, .overlap = 4, .progress = [&](Index done, Index total) {
                              EXPECT_GT(done, last);
                              last = done, whole = total;
                            }};
  restore_tiled(
      model, {1, 21, 13},
      [](Index, Index, View<float, 4> tile) { std::fill_n(tile.data, tile.size(), 0.0f); },
      [&](Index y, View<const float, 4> rows) {
        EXPECT_EQ(y, next);
        next += rows.shape[1];
        EXPECT_EQ(rows.shape[2], 26);
      },
      options, exec);
  EXPECT_EQ(next, 42);
  EXPECT_EQ(last, whole);
  TileOptions stop;
  stop.progress = [](Index done, Index) {
    if (done > 0) throw Error("Stopped", "the caller has had enough");
  };
  const Tensor<float, 4> image = random_image(1, 8, 8, 2);
  EXPECT_THROW(tiled(model, image, stop), Error);
}

TEST(TiledRestoration, RefusesWhatDoesNotFit) {
  const Toy model;
  CpuExec exec({1});
  Tensor<float, 4> image({1, 8, 8, 2}), out({1, 16, 16, 2}), narrow({1, 16, 15, 2});
  EXPECT_THROW(restore_tiled(model, image.view(), narrow.view(), {}, exec), Error);
  EXPECT_THROW(restore_tiled(model, image.view(), out.view(), {.tile = -1}, exec), Error);
  EXPECT_THROW(restore_tiled(model, image.view(), out.view(), {.overlap = -1}, exec), Error);
  EXPECT_THROW(restore_tiled(model, out.view().slice(3, 0, 1), out.view(), {}, exec), Error);
}

}  // namespace
}  // namespace ashlar
