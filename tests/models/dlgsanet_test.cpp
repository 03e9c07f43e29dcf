// SPDX-License-Identifier: Apache-2.0
// DLGSANet with random weights, beside its equations in double.
#include "ashlar/models/dlgsanet.hpp"

#include "tests/models/image_reference.hpp"

namespace ashlar {
namespace {

using namespace test::equations;
using test::refusal;

Map local(const Layers& n, const Map& x) {
  const Map y = n.conv(x, "conv0");
  if (n.has("conv.weight")) return n.conv(n.conv(y, "conv"), "conv1");
  const Map kernels = n.conv(n.conv(n.conv(y, "conv.conv1.0"), "conv.conv1.1"), "conv.conv2.0");
  const Index k = n.shape("conv.conv1.1.weight")[2], width = x.c * k * k / kernels.c;
  Map o(x.h, x.w, x.c);
  for (Index i = 0; i < x.h; ++i)
    for (Index j = 0; j < x.w; ++j)
      for (Index c = 0; c < x.c; ++c)
        for (Index r = 0; r < k; ++r)
          for (Index s = 0; s < k; ++s) {
            const Index a = i + r - (k - 1) / 2, b = j + s - (k - 1) / 2;
            if (a < 0 || a >= x.h || b < 0 || b >= x.w) continue;
            o(i, j, c) += kernels(i, j, c / width * k * k + r * k + s) * y(a, b, c);
          }
  return n.conv(o, "conv1");
}

// Where tiles start, as the authors' loop has it.
std::vector<Index> starts(Index length, Index tile) {
  const Index k = std::min(length, tile), count = (length - 1) / k + 1;
  const Index step =
      count == 1 ? k
                 : static_cast<Index>(
                       std::ceil(static_cast<double>(length - k) / static_cast<double>(count - 1) - 1e-8));
  std::vector<Index> all;
  bool last = false;
  for (Index i = 0; i < length && !last; i += step) {
    if (i + k >= length) i = length - k, last = true;
    all.push_back(i);
  }
  return all;
}

Map global(const Layers& n, const Map& x, Index tile,
           const std::function<void(std::vector<double>&)>& weigh) {
  const Map qkv = n.conv(n.conv(x, "qkv"), "qkv_dwconv");
  const std::vector<double> temperature = n.get("temperature");
  const Index heads = static_cast<Index>(temperature.size()), dim = x.c / heads;
  const Index th = tile == 0 ? x.h : std::min(tile, x.h), tw = tile == 0 ? x.w : std::min(tile, x.w);
  Map sum(x.h, x.w, x.c), count(x.h, x.w, 1);
  for (Index top : starts(x.h, th))
    for (Index left : starts(x.w, tw)) {
      const auto over = [&](auto&& f) {
        for (Index y = top; y < top + th; ++y)
          for (Index z = left; z < left + tw; ++z) f(y, z);
      };
      const auto dot = [&](Index a, Index b) {
        double s = 0;
        over([&](Index y, Index z) { s += qkv(y, z, a) * qkv(y, z, b); });
        return s;
      };
      const auto length = [&](Index a) { return std::max(std::sqrt(dot(a, a)), 1e-12); };
      over([&](Index y, Index z) { count(y, z, 0) += 1; });
      for (Index c = 0; c < x.c; ++c) {
        std::vector<double> row;
        for (Index d = c / dim * dim; d < (c / dim + 1) * dim; ++d)
          row.push_back(temperature[static_cast<std::size_t>(c / dim)] * dot(c, x.c + d) / length(c) /
                        length(x.c + d));
        weigh(row);
        over([&](Index y, Index z) {
          for (Index i = 0; i < dim; ++i)
            sum(y, z, c) += row[static_cast<std::size_t>(i)] * qkv(y, z, 2 * x.c + c / dim * dim + i);
        });
      }
    }
  for (Index i = 0; i < x.h * x.w; ++i)
    for (Index c = 0; c < x.c; ++c) sum(0, i, c) /= count(0, i, 0);
  return n.conv(sum, "project_out");
}

template <double (*F)(double)>
void each(std::vector<double>& row) {
  for (double& s : row) s = F(s);
}
void softmax(std::vector<double>& row) {
  double sum = 0;
  for (double s : row) sum += std::exp(s);
  for (double& s : row) s = std::exp(s) / sum;
}

Map feed_forward(const Layers& n, const Map& x) {
  if (!n.has("project_in.weight")) return n.conv(n.conv(x, "body.0").each(gelu), "body.2");
  const Map z = n.conv(n.conv(x, "project_in"), "dwconv");
  return n.conv(times(z.channels(0, z.c / 2).each(gelu), z.channels(z.c / 2, z.c)), "project_out");
}

struct Shape {
  Index groups, layers, tile;
  bool body_norm;
  std::function<void(std::vector<double>&)> weigh;
};

// What follows the first convolution.
Map deep(const Layers& n, const Map& f, const Shape& s) {
  const Index first = s.body_norm ? 1 : 0;
  const auto part = [&](Index i) { return n.at(concat("deep_feature_extraction.", i)); };
  Map t = s.body_norm ? part(0).norm(f, "body") : f;
  for (Index g = 0; g < s.groups; ++g) {
    Map x = t;
    const Layers body = part(first + g).at("body");
    for (Index i = 0; i < s.layers; ++i) {
      const Layers l = body.at(std::to_string(i));
      if (l.has("norm1.body.weight")) {
        x = added(x, local(l.at("IDynamicDWConv"), l.norm(x, "norm1.body")));
        x = added(x, feed_forward(l.at("IDynamic_ffn"), l.norm(x, "norm2.body")));
      } else {
        x = added(x, global(l.at("restormer_attn"), l.norm(x, "norm3.body"), s.tile, s.weigh));
        x = added(x, feed_forward(l.at("restormer_ffn"), l.norm(x, "norm4.body")));
      }
    }
    t = added(body.conv(x, std::to_string(s.layers)), t);
  }
  if (s.body_norm) t = part(first + s.groups).norm(t, "body");
  return n.conv(t, concat("deep_feature_extraction.", s.groups + 2 * first));
}

// With a head of one convolution, and a pixel shuffle where it enlarges.
Map plain(const Layers& n, const Map& image, const Shape& s, Index scale) {
  const double mean[] = {0.4488, 0.4371, 0.4040};
  Map x = image;
  for (Index i = 0; i < x.h * x.w; ++i)
    for (Index c = 0; c < 3; ++c) x(0, i, c) -= mean[c];
  const Map f = n.conv(x, "overlap_embed.0.proj");
  const Map g = added(deep(n, f, s), f);
  Map out = n.has("conv_last.weight") ? n.conv(g, "conv_last") : shuffled(n.conv(g, "upsample.0"), scale);
  for (Index i = 0; i < out.h * out.w; ++i)
    for (Index c = 0; c < 3; ++c) out(0, i, c) += mean[c];
  return out;
}

TEST(Dlgsanet, MatchesItsEquationsInOtherShapes) {
  expect_reference(
      "DLGSANet",
      R"({"in_chans": 3, "dim": 30, "groups": 2, "blocks": 2, "buildblock_type": "sparseedge", "window_size": 5,
          "idynamic_num_heads": 5, "idynamic_ffn_expansion_factor": 1.5, "restormer_num_heads": 5,
          "restormer_ffn_expansion_factor": 1.5, "tlc_flag": true, "tlc_kernel": 7, "activation": "relu",
          "upscale": 3, "img_range": 1.0, "upsampler": "pixelshuffle", "body_norm": true, "num_feat": 6})",
      R"({"tlc_kernel": 7})", {9, 17}, [](const Layers& n, const Map& image) {
        return framed(n, image, {.first = "overlap_embed.0.proj"}, 3, [&](const Map& f) {
          return deep(n, f, {2, 4, 7, true, each<relu>});
        });
      });
}

TEST(Dlgsanet, MatchesItsEquationsWithOtherParts) {
  const std::string common =
      R"("dim": 12, "groups": 1, "window_size": 3, "idynamic_num_heads": 4, "restormer_num_heads": 3, )";
  expect_reference(
      "DLGSANet",
      "{" + common + R"("blocks": 1, "activation": "gelu", "idynamic_ffn_type": "BaseFFN", "upscale": 2,
                       "upsampler": "pixelshuffledirect"})",
      R"({"activation": "gelu"})", {6, 7}, [](const Layers& n, const Map& image) {
        return plain(n, image, {1, 2, 96, false, each<gelu>}, 2);
      });
  expect_reference(
      "DLGSANet",
      "{" + common + R"("blocks": 1, "activation": "sigmoid", "idynamic": false, "tlc_flag": false,
                       "restormer_ffn_type": "BaseFFN", "upscale": 4, "upsampler": "pixelshuffledirect"})",
      R"({"activation": "sigmoid", "tlc_flag": false})", {6, 7}, [](const Layers& n, const Map& image) {
        return plain(n, image, {1, 2, 0, false, each<sigmoid>}, 4);
      });
  // The authors' blocks with a softmax have tiles of 48.
  expect_reference("DLGSANet",
                   "{" + common + R"("blocks": 1, "buildblock_type": "edge", "upscale": 1, "upsampler": ""})",
                   R"({"buildblock_type": "edge"})", {5, 57}, [](const Layers& n, const Map& image) {
                     return plain(n, image, {1, 2, 48, false, softmax}, 1);
                   });
  expect_reference(
      "DLGSANet",
      "{" + common + R"("blocks": 2, "buildblock_type": "restormer", "upscale": 1, "upsampler": ""})",
      R"({"buildblock_type": "restormer"})", {6, 7}, [](const Layers& n, const Map& image) {
        return plain(n, image, {1, 2, 48, false, softmax}, 1);
      });
  expect_reference(
      "DLGSANet",
      "{" + common + R"("blocks": 2, "buildblock_type": "idynamic", "upscale": 1, "upsampler": ""})",
      R"({"buildblock_type": "idynamic"})", {6, 7}, [](const Layers& n, const Map& image) {
        return plain(n, image, {1, 2, 48, false, softmax}, 1);
      });
}

// A kernel map of several bands of rows, each made at a time.
TEST(Dlgsanet, KernelsAreMadeInBandsOfRows) {
  const Recorded random;
  CpuExec one({1}), three({3});
  const ParameterReader<CpuExec> r(random, one);
  const DynamicLocalAttention<CpuExec> attention(r, {.dim = 12, .kernel = 7, .group_width = 1, .reduced = 3});
  const Index height = 15, width = 80;  // 47,040 numbers a row
  const Tensor<float, 4> x = random_image(2, height, width, 12);
  Tensor<float, 4> out(x.shape()), again(x.shape());
  attention(x.view(), out.view(), one);
  attention(x.view(), again.view(), three);
  test::expect_close(again.view(), View<const float, 4>(out.view()), [](Index) { return 0; });
  for (Index n = 0; n < 2; ++n) {
    const Map want = local(Layers(random.checkpoint()), padded(x, n, 1));
    double top = 0;
    for (double v : want.v) top = std::max(top, std::abs(v));
    for (Index i = 0; i < height * width * 12; ++i)
      ASSERT_NEAR(out.data()[n * height * width * 12 + i], want.v[static_cast<std::size_t>(i)], 2e-5 * top);
  }
}

TEST(Dlgsanet, RefusesWhatItDoesNotImplementOrTheCheckpointContradicts) {
  CpuExec exec;
  const Recorded random;
  const char* config = R"({"dim": 12, "groups": 1, "blocks": 1, "window_size": 3, "idynamic_num_heads": 4,
      "restormer_num_heads": 3, "upscale": 2, "upsampler": "pixelshuffledirect"})";
  load_restoration_model(parse_json(config, "config"), random, exec, {.architecture = "DLGSANet"});
  for (const char* setting :
       {R"("activation": "identity")", R"("buildblock_type": "edges")", R"("buildblock_type": "idynamic")",
        R"("idynamic_ffn_type": "MLP")", R"("idynamic_ffn_type": "BaseFFN")", R"("idynamic": false)",
        R"("window_size": 5)", R"("idynamic_num_heads": 6)", R"("restormer_num_heads": 4)", R"("blocks": 2)",
        R"("groups": 2)", R"("body_norm": true)", R"("upsampler": "nearest+conv")",
        R"("restormer_ffn_expansion_factor": 3)", R"("tlc_kernel": 0)"}) {
    const std::string key(setting, std::string(setting).find(':'));
    const std::string said = refusal([&] {
      load_restoration_model(parse_json(concat("{", setting, "}"), "config"), random.checkpoint(), exec);
    });
    EXPECT_NE(said.find(key), std::string::npos) << setting << ": " << said;
  }
}

}  // namespace
}  // namespace ashlar
