// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/swin.hpp"

#include "tests/golden_check/images.hpp"

namespace ashlar::golden {
namespace {

constexpr double kModelBound = 1e-4;

const Runner kSwin{
    "swin", "swin.safetensors, swinv2.safetensors: a classification network, param.* inside",
    [](const Path& path) {
      const std::string stem = path.stem().string();
      return path.extension() == ".safetensors" && stem.starts_with("swin") && !stem.starts_with("swinir") &&
             !stem.starts_with("swin2sr");
    },
    [](const Path& path, Report& report) {
      const auto file = std::make_shared<const SafetensorsFile>(path.string());
      const std::string slug = path.stem().string();
      CpuExec exec;
      const auto model = load_swin(config_of(*file), *embedded_parameters(file), exec);
      const SwinConfig& c = model->config();
      const Tensor<float, 4> image = image_of(*file, "input.x");
      Tensor<float, 2> logits({image.shape()[0], model->outputs()});
      (*model)(image.view(), logits.view(), exec);
      report.compare(slug, "output.logits", logits.data(), logits.size(), floats(*file, "output.logits"),
                     kModelBound);

      const auto same = [&](const std::string& name, View<const float, 4> got) {
        if (file->contains(name)) compare_image(slug, name, got, *file, kModelBound, report);
      };
      Tensor<float, 4> t({image.shape()[0], c.resolution(0), c.resolution(0), c.channels});
      model->embed(image.view(), t.view(), exec);
      same("mid.patch_embed", t.view());
      for (Index s = 0; s < c.stages(); ++s) {
        const auto& stage = model->stages()[static_cast<std::size_t>(s)];
        for (std::size_t i = 0; i < stage.blocks.size(); ++i) {
          stage.blocks[i](t.view(), exec);
          same(concat("mid.layer", s, ".block", i), t.view());
        }
        if (stage.merge) {
          Tensor<float, 4> next({t.shape()[0], t.shape()[1] / 2, t.shape()[2] / 2, 2 * t.shape()[3]});
          stage.merge(t.view(), next.view(), exec);
          t = std::move(next);
        }
        same(concat("mid.layer", s), t.view());
      }
    }};
const Registration kRegistered(kSwin);

}  // namespace
}  // namespace ashlar::golden
