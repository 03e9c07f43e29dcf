// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/huggingface.hpp"
#include "ashlar/nn/mixers/window_attention.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

constexpr double kBound = 2e-5;

const Runner kRunner{
    "lrgt-lga", "lrgt_lga*.safetensors: long-range grouping attention of several views, param.* inside",
    [](const Path& path) {
      return path.extension() == ".safetensors" && path.stem().string().starts_with("lrgt_lga");
    },
    [](const Path& path, Report& report) {
      const auto file = std::make_shared<const SafetensorsFile>(path.string());
      const auto parameters = embedded_parameters(file);
      const Value c = parse_config(file->metadata().at("config"), "the golden's config");
      const Index dim = c.get_integer("dim"), heads = c.get_integer("heads"), views = c.get_integer("views");
      const bool biased = c.get_boolean("qkv_bias", true);
      CpuExec exec;
      const ParameterReader<CpuExec> r(*parameters, exec);
      const WindowSelfAttention<CpuExec> grouped(
          r, {.dim = dim,
              .branches = {{.heads = heads, .grid = c.get_integer("patch_group")}},
              .biased = biased,
              .value_conv = true});
      const WindowSelfAttention<CpuExec> plain(
          r, {.dim = dim, .branches = {{.heads = heads}}, .biased = biased});
      r.expect_all_read([](std::string_view) { return false; });

      const Tensor<float, 1> x = floats(*file, "input.x");
      const Index side = c.get_integer("grid"), images = x.size() / (side * side * dim);
      const View<const float, 4> image(x.data(), {images, side, side, dim});
      Tensor<float, 4> out(image.shape);
      const auto compare = [&](const char* name) {
        report.compare(path.stem().string(), name, out.data(), out.size(),
                       floats(*file, concat("output.", name)), kBound);
      };
      grouped(image, out.view(), exec, views);
      compare("y_lga");
      plain(image, out.view(), exec);
      compare("y_plain");
    }};
const Registration kRegistered(kRunner);

}  // namespace
}  // namespace ashlar::golden
