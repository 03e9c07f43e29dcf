// SPDX-License-Identifier: Apache-2.0
// HAT and DRCT with random weights, beside their equations in double.
#include "tests/models/image_reference.hpp"

namespace ashlar {
namespace {

using namespace test::equations;
using test::refusal;

Map swin_block(const Layers& n, Map x, Index window, Index shift) {
  x = added(x, swin_attention(n.at("attn"), n.norm(x, "norm1"), window, shift));
  return added(x, n.mlp(n.norm(x, "norm2")));
}

// CAB of HAT.
Map conv_branch(const Layers& n, const Map& x) {
  const Map u = n.conv(n.conv(x, "cab.0").each(gelu), "cab.2");
  Map mean(1, 1, u.c);
  for (Index i = 0; i < u.h * u.w; ++i)
    for (Index c = 0; c < u.c; ++c) mean(0, 0, c) += u(0, i, c) / static_cast<double>(u.h * u.w);
  const Map gate = n.conv(n.conv(mean, "cab.3.attention.1").each(relu), "cab.3.attention.3").each(sigmoid);
  Map out = u;
  for (Index i = 0; i < u.h * u.w; ++i)
    for (Index c = 0; c < u.c; ++c) out(0, i, c) *= gate(0, 0, c);
  return out;
}

Map overlapping(const Layers& n, const Map& x, Index window, Index over) {
  const Map qkv = n.conv(x, "qkv");
  const Index heads = n.shape("relative_position_bias_table")[1], side = window + over - 1;
  const Map out = attend(qkv.channels(0, x.c), qkv.channels(x.c, 2 * x.c), qkv.channels(2 * x.c, 3 * x.c),
                         heads, 1 / std::sqrt(static_cast<double>(x.c / heads)),
                         n.get("relative_position_bias_table"), [&](Index y, Index z) {
                           std::vector<Key> keys;
                           for (Index i = 0; i < over; ++i)
                             for (Index j = 0; j < over; ++j) {
                               const Index row = (i - y % window + window - over + 1) * side + j -
                                                 z % window + window - over + 1;
                               Key key{y / window * window + i - (over - window) / 2,
                                       z / window * window + j - (over - window) / 2,
                                       (row % (side * side) + side * side) % (side * side)};
                               if (key.y < 0 || key.y >= x.h || key.x < 0 || key.x >= x.w) key.y = -1;
                               keys.push_back(key);
                             }
                           return keys;
                         });
  return n.conv(out, "proj");
}

struct Shape {
  Index window, over, groups, blocks, scale;
  double conv_scale;
  Frame frame;
};

Map hat(const Layers& n, const Map& image, const Shape& s) {
  return framed(n, image, s.frame, s.scale, [&](const Map& f) {
    Map t = n.norm(f, "patch_embed.norm");
    for (Index g = 0; g < s.groups; ++g) {
      const Layers group = n.at(concat("layers.", g)), inside = group.at("residual_group");
      Map y = t;
      for (Index i = 0; i < s.blocks; ++i) {
        const Layers b = inside.at(concat("blocks.", i));
        const Map normed = b.norm(y, "norm1");
        y = added(y, swin_attention(b.at("attn"), normed, s.window, i % 2 * (s.window / 2)));
        y = added(y, conv_branch(b.at("conv_block"), normed), s.conv_scale);
        y = added(y, b.mlp(b.norm(y, "norm2")));
      }
      const Layers o = inside.at("overlap_attn");
      y = added(y, overlapping(o, o.norm(y, "norm1"), s.window, s.over));
      y = added(y, o.mlp(o.norm(y, "norm2")));
      t = added(group.has("conv.weight") ? group.conv(y, "conv") : y, t);
    }
    t = n.norm(t, "norm");
    return n.has("conv_after_body.weight") ? n.conv(t, "conv_after_body") : t;
  });
}

TEST(Hat, MatchesItsEquationsInOtherShapes) {
  expect_reference(
      "HAT",
      R"({"img_size": 32, "in_chans": 3, "embed_dim": 20, "depths": [3], "num_heads": [5], "window_size": 8,
          "compress_ratio": 4, "squeeze_factor": 5, "conv_scale": 0.05, "overlap_ratio": 0.25, "mlp_ratio": 1.5,
          "upscale": 3, "img_range": 255.0, "upsampler": "pixelshuffle", "resi_connection": "1conv",
          "num_feat": 6})",
      R"({"conv_scale": 0.05, "img_range": 255.0})", {19, 13}, [](const Layers& n, const Map& image) {
        return hat(n, image, {8, 10, 1, 3, 3, 0.05, {.range = 255}});
      });
}

TEST(Hat, MatchesItsEquationsWithoutConvolutionsBehindGroups) {
  expect_reference(
      "HAT",
      R"({"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 3], "window_size": 3, "compress_ratio": 3,
          "squeeze_factor": 6, "overlap_ratio": 0.7, "mlp_ratio": 2, "upscale": 1, "in_chans": 1,
          "upsampler": "pixelshuffle", "resi_connection": "identity", "num_feat": 4})",
      "{}", {5, 7}, [](const Layers& n, const Map& image) {
        return hat(n, image, {3, 5, 2, 1, 1, 0.01, {.mean = {0}}});
      });
}

Map drct(const Layers& n, const Map& image, Index window, Index groups, Index scale, const Frame& frame) {
  return framed(n, image, frame, scale, [&](const Map& f) {
    Map t = n.norm(f, "patch_embed.norm");
    for (Index g = 0; g < groups; ++g) {
      const Layers group = n.at(concat("layers.", g));
      Map seen = t;
      for (Index i = 1; i <= 5; ++i) {
        const Map a =
            group.conv(swin_block(group.at(concat("swin", i)), seen, window, i % 2 == 0 ? window / 2 : 0),
                       concat("adjust", i));
        if (i == 5)
          t = added(t, a, 0.2);
        else
          seen = beside(seen, a.each(leaky(0.2)));
      }
    }
    t = n.norm(t, "norm");
    return n.has("conv_after_body.weight") ? n.conv(t, "conv_after_body") : t;
  });
}

constexpr const char* kDrct =
    R"({"img_size": 20, "in_chans": 1, "embed_dim": 16, "depths": [6, 6], "num_heads": [4, 4], "window_size": 5,
        "gc": 5, "mlp_ratio": 1.5, "upscale": 3, "img_range": 1.0, "upsampler": "pixelshuffle",
        "resi_connection": "identity", "num_feat": 4})";

TEST(Drct, MatchesItsEquationsInOtherShapes) {
  expect_reference("DRCT", kDrct, "{}", {12, 17},
                   [](const Layers& n, const Map& image) { return drct(n, image, 5, 2, 3, {.mean = {0}}); });
}

std::string refused(const std::string& architecture, const std::string& config) {
  return refusal([&] {
    CpuExec exec;
    load_restoration_model(parse_json(config, "config"), Recorded(), exec, {.architecture = architecture});
  });
}

TEST(Drct, RefusesHeadsThatItsRuleDoesNotMake) {
  const Recorded random;
  CpuExec exec;
  load_restoration_model(parse_json(kDrct, "config"), random, exec, {.architecture = "DRCT"});
  static const float zeros[81 * 3] = {};
  random.checkpoint().set("layers.1.swin4.attn.relative_position_bias_table", {zeros, DType::f32, {81, 3}});
  EXPECT_EQ(refusal([&] { load_restoration_model(Value(), random.checkpoint(), exec); }),
            "checkpoint: layer 4 of group 1 has 3 heads, expected 1, as the first one has 4");
}

TEST(HatAndDrct, RefuseWhatTheyDoNotImplement) {
  const std::string common =
      R"("embed_dim": 16, "depths": [1], "num_heads": [4], "window_size": 4, "upscale": 2,
         "compress_ratio": 2, "squeeze_factor": 4, "gc": 4, )";
  for (const char* architecture : {"HAT", "DRCT"}) {
    EXPECT_NE(
        refused(architecture, "{" + common + R"("upsampler": "pixelshuffledirect"})").find("\"upsampler\""),
        std::string::npos);
    EXPECT_NE(
        refused(architecture, "{" + common + R"("upsampler": "pixelshuffle", "resi_connection": "3conv"})")
            .find("\"resi_connection\""),
        std::string::npos);
    EXPECT_NE(
        refused(architecture, "{" + common + R"("upsampler": "pixelshuffle", "ape": true})").find("\"ape\""),
        std::string::npos);
  }
  EXPECT_NE(refused("HAT", "{" + common + R"("upsampler": "pixelshuffle", "overlap_ratio": 0.25})")
                .find("\"overlap_ratio\""),
            std::string::npos);
  EXPECT_NE(
      refused("HAT", "{" + common + R"("upsampler": "pixelshuffle", "img_size": 2})").find("\"img_size\""),
      std::string::npos);
}

}  // namespace
}  // namespace ashlar
