// SPDX-License-Identifier: Apache-2.0
// RGT with random weights, beside its equations in double.
#include "ashlar/models/rgt.hpp"

#include "ashlar/ops/window_bias.hpp"
#include "tests/models/image_reference.hpp"

namespace ashlar {
namespace {

using namespace test::equations;
using test::refusal;

// The table of position biases, [rows, heads].
std::vector<double> dynamic_table(const Layers& n, Index wh, Index ww) {
  std::vector<double> table;
  for (Index dy = 1 - wh; dy < wh; ++dy)
    for (Index dx = 1 - ww; dx < ww; ++dx) {
      Map x(1, 1, 2);
      x(0, 0, 0) = static_cast<double>(dy), x(0, 0, 1) = static_cast<double>(dx);
      x = n.conv(x, "pos_proj");
      for (const char* stage : {"pos1", "pos2", "pos3"})
        x = n.at(stage).conv(n.at(stage).norm(x, "0").each(relu), "2");
      table.insert(table.end(), x.v.begin(), x.v.end());
    }
  return table;
}

Map local(const Layers& n, const Map& x, Index heads, std::array<Index, 2> split, bool shifted) {
  const Map qkv = n.conv(x, "qkv");
  const Index half = x.c / 2, longer = std::max(split[0], split[1]);
  const Index hp = (x.h + longer - 1) / longer * longer, wp = (x.w + longer - 1) / longer * longer;
  const auto branch = [&](Index b) {
    const Index wh = split[static_cast<std::size_t>(b)], ww = split[static_cast<std::size_t>(1 - b)];
    const auto part = [&](Index third) {
      return qkv.channels(third * x.c + b * half, third * x.c + (b + 1) * half);
    };
    return attend(part(0), part(1), part(2), heads / 2, 1 / std::sqrt(static_cast<double>(x.c / heads)),
                  dynamic_table(n.at(concat("attns.", b, ".pos")), wh, ww), [&](Index y, Index z) {
                    return window_keys(y, z, x.h, x.w, wh, ww, shifted ? wh / 2 : 0, shifted ? ww / 2 : 0, hp,
                                       wp);
                  });
  };
  return n.conv(added(beside(branch(0), branch(1)), n.conv(qkv.channels(2 * x.c, 3 * x.c), "get_v")), "proj");
}

Map recursive(const Layers& n, const Map& x, Index heads, double ratio, Index times) {
  Map m = x;
  for (Index i = 0; i < times; ++i) m = n.conv(m, "reduction1", 4, false);
  const Map r = n.norm(n.conv(n.conv(m, "dwconv"), "conv"), "norm_act.0").each(gelu);
  Map v = n.conv(r, "v");
  v = added(v, n.conv(v, "cpe"));
  std::vector<Key> keys;
  for (Index i = 0; i < r.h * r.w; ++i) keys.push_back({i / r.w, i % r.w, 0});
  return n.conv(
      attend(n.conv(x, "q"), n.conv(r, "k"), v, heads,
             1 / std::sqrt(static_cast<double>(x.c / heads) * ratio), {}, [&](Index, Index) { return keys; }),
      "proj");
}

Map gated(const Layers& n, const Map& x) {
  const Map u = n.conv(x, "fc1").each(gelu);
  const Map gate = n.conv(n.norm(u.channels(u.c / 2, u.c), "sg.norm"), "sg.conv");
  return n.conv(times(u.channels(0, u.c / 2), gate), "fc2");
}

struct Shape {
  std::vector<Index> depths, heads;
  std::array<Index, 2> split;
  double ratio;
  Index scale;
};

Map three(const Layers& n, const Map& x, const std::string& name) {
  if (n.has(name + ".weight")) return n.conv(x, name);
  return n.conv(n.conv(n.conv(x, name + ".0").each(leaky(0.2)), name + ".2").each(leaky(0.2)), name + ".4");
}

Map rgt(const Layers& n, const Map& image, const Shape& s) {
  return framed(n, image, {}, s.scale, [&](const Map& f) {
    Map t = n.norm(f, "before_RG.1");
    for (std::size_t g = 0; g < s.depths.size(); ++g) {
      const Layers group = n.at(concat("layers.", g));
      Map x = t;
      for (Index i = 0; i < s.depths[g]; ++i) {
        const Layers b = group.at(concat("blocks.", i));
        const Map given = x, normed = b.norm(x, "norm1");
        const bool shifted = g % 2 == 0 ? i > 0 && (i - 2) % 4 == 0 : i % 4 == 0;
        x = added(x, i % 2 == 0 ? local(b.at("attn"), normed, s.heads[g], s.split, shifted)
                                : recursive(b.at("attn"), normed, s.heads[g], s.ratio, 2));
        x = added(x, gated(b.at("mlp"), b.norm(x, "norm2")));
        const std::vector<double> gamma = b.get("gamma");
        for (Index p = 0; p < x.h * x.w; ++p)
          for (Index c = 0; c < x.c; ++c) x(0, p, c) += gamma[static_cast<std::size_t>(c)] * given(0, p, c);
      }
      t = added(three(group, x, "conv"), t);
    }
    return three(n, n.norm(t, "norm"), "conv_after_body");
  });
}

// The buffers from which the windows can be told.
void add_buffers(ParameterMap& checkpoint, Index groups, const std::vector<Index>& depths,
                 std::array<Index, 2> split) {
  for (Index g = 0; g < groups; ++g)
    for (Index i = 0; i < depths[static_cast<std::size_t>(g)]; i += 2)
      for (Index b = 0; b < 2; ++b) {
        const auto distances = std::make_shared<Tensor<float, 2>>(
            position_offsets({split[static_cast<std::size_t>(b)], split[static_cast<std::size_t>(1 - b)]}));
        checkpoint.set(concat("layers.", g, ".blocks.", i, ".attn.attns.", b, ".rpe_biases"),
                       {distances->data(), DType::f32, {distances->shape()[0], 2}, distances});
      }
}

constexpr const char* kWide =
    R"({"img_size": 64, "in_chans": 3, "embed_dim": 64, "depth": [3], "num_heads": [4], "mlp_ratio": 0.5,
        "qkv_bias": true, "upscale": 2, "img_range": 1.0, "resi_connection": "1conv", "split_size": [4, 8],
        "c_ratio": 0.25, "upsampler": "pixelshuffle", "num_feat": 6})";

TEST(Rgt, MatchesItsEquationsInOtherShapes) {
  const auto reference = [](const Layers& n, const Map& image) {
    return rgt(n, image, {{3}, {4}, {4, 8}, 0.25, 2});
  };
  expect_reference("RGT", kWide, R"({"split_size": [4, 8]})", {17, 21}, reference);
  expect_reference("RGT", kWide, "{}", {17, 21}, reference, [](ParameterMap& checkpoint) {
    add_buffers(checkpoint, 1, {3}, {4, 8});
  });
}

TEST(Rgt, MatchesItsEquationsInGroupsOfBothKinds) {
  expect_reference("RGT",
                   R"({"embed_dim": 24, "depth": [2, 4], "num_heads": [2, 6], "mlp_ratio": 2, "upscale": 3,
          "resi_connection": "3conv", "split_size": [6, 3], "c_ratio": 0.5, "upsampler": "pixelshuffle",
          "num_feat": 5})",
                   R"({"split_size": [6, 3]})", {16, 19}, [](const Layers& n, const Map& image) {
                     return rgt(n, image, {{2, 4}, {2, 6}, {6, 3}, 0.5, 3});
                   });
}

// floor(log4(side / 16)) of the longer side, at least 2, with something left of the shorter one.
TEST(Rgt, CountsReductions) {
  const auto times = [](Index h, Index w) { return RecursiveAttention<CpuExec>::reductions({h, w}); };
  EXPECT_EQ(times(16, 16), 2);
  EXPECT_EQ(times(1023, 900), 2);
  EXPECT_EQ(times(1024, 64), 3);
  EXPECT_EQ(times(1024, 63), 2);
  EXPECT_EQ(times(64, 4096), 3);
  EXPECT_EQ(times(4096, 256), 4);
}

TEST(Rgt, ReducesLongImagesOnceMore) {
  const Recorded random;
  CpuExec exec({1});
  const RecursiveAttentionConfig c{.dim = 6, .heads = 3, .reduced = 3};
  const ParameterReader<CpuExec> r(random, exec);
  const RecursiveAttention<CpuExec> attention(r, c);
  const Tensor<float, 4> x = random_image(1, 65, 1030, 6);
  Tensor<float, 4> out(x.shape());
  attention(x.view(), out.view(), exec);
  Map image(65, 1030, 6);
  for (Index i = 0; i < x.size(); ++i) image.v[static_cast<std::size_t>(i)] = x.data()[i];
  const Map want = recursive(Layers(random.checkpoint()), image, 3, 0.5, 3);
  double top = 0;
  for (double v : want.v) top = std::max(top, std::abs(v));
  for (Index i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out.data()[i], want.v[static_cast<std::size_t>(i)], 2e-5 * top);
}

TEST(Rgt, SmallImagesAreMadeLargeEnough) {
  CpuExec exec;
  const Recorded random;
  const auto model =
      load_restoration_model(parse_json(kWide, "config"), random, exec, {.architecture = "RGT"});
  const Tensor<float, 4> x = random_image(1, 5, 30, 3);
  Tensor<float, 4> out({1, 10, 60, 3});
  std::fill_n(out.data(), out.size(), std::nanf(""));
  model->run(x.view(), out.view(), exec);
  for (Index i = 0; i < out.size(); ++i) ASSERT_TRUE(std::isfinite(out.data()[i]));
}

TEST(Rgt, RefusesWhatItDoesNotImplementOrTheCheckpointContradicts) {
  CpuExec exec;
  const Recorded random;
  load_restoration_model(parse_json(kWide, "config"), random, exec, {.architecture = "RGT"});
  const auto sentence = [&](const char* config) {
    return refusal([&] { load_restoration_model(parse_json(config, "config"), random.checkpoint(), exec); });
  };
  EXPECT_NE(sentence("{}").find("\"split_size\" is missing"), std::string::npos);
  EXPECT_NE(sentence(R"({"split_size": [4, 6]})").find("\"split_size\""), std::string::npos);
  EXPECT_NE(sentence(R"({"split_size": [4, 8], "c_ratio": 0.5})").find("\"c_ratio\""), std::string::npos);
  EXPECT_NE(sentence(R"({"split_size": [4, 8], "qkv_bias": false})").find("\"qkv_bias\""), std::string::npos);
  EXPECT_NE(sentence(R"({"split_size": [4, 8], "resi_connection": "3conv"})").find("\"resi_connection\""),
            std::string::npos);
  add_buffers(random.checkpoint(), 1, {3}, {4, 8});
  EXPECT_NE(sentence(R"({"split_size": [8, 4]})").find("\"split_size\""), std::string::npos);
}

}  // namespace
}  // namespace ashlar
