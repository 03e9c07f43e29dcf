// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/swin2sr.hpp"

#include "ashlar/ops/pad2d.hpp"

#include "tests/golden_check/images.hpp"

namespace ashlar::golden {
namespace {

constexpr double kModelBound = 1e-4;

// The layers of the first group, and the auxiliary result of the whole network, where the golden has one.
void check_parts(const std::string& slug, const Value& config, const Parameters& weights,
                 const Parameters& golden, Report& report) {
  CpuExec exec;
  const auto net = load_swin2sr(config, weights, exec);
  const auto same = [&](const std::string& name, View<const float, 4> got) {
    if (golden.contains(name)) compare_image(slug, name, got, golden, kModelBound, report);
  };
  const Tensor<float, 4> f = image_of(golden, "mid.conv_first");
  Tensor<float, 4> t(f.shape()), e(f.shape());
  net->parts().embed(f.view(), e.view(), exec);
  net->parts().embed_norm(as_tokens(e.view()), as_tokens(t.view()), exec);
  const auto& group = dynamic_cast<const Swin2srGroup<CpuExec>&>(*net->parts().groups.front());
  Tensor<float, 4> x = t;
  for (std::size_t i = 0; i < group.blocks().size(); ++i) {
    group.blocks()[i](x.view(), exec);
    same(concat("mid.layer0.block", i), x.view());
  }
  for (std::size_t g = 0; g < net->parts().groups.size(); ++g) {
    net->parts().groups[g]->forward(t.view(), exec);
    same(concat("mid.layer", g), t.view());
  }
}

void check_aux(const std::string& slug, const Value& config, const Parameters& weights,
               const Parameters& golden, Report& report) {
  CpuExec exec;
  const auto net = load_swin2sr(config, weights, exec);
  const Tensor<float, 4> in = image_of(golden, "input.lq");
  const Index images = in.shape()[0], scale = net->scale(), channels = net->info().out_channels;
  const auto padded = net->padded({in.shape()[1], in.shape()[2]});
  Tensor<float, 4> wider({images, padded[0], padded[1], in.shape()[3]}),
      aux({images, padded[0], padded[1], channels});
  Tensor<float, 4> out({images, scale * in.shape()[1], scale * in.shape()[2], channels});
  pad2d(Pad2d{in.view(), wider.view(), PadMode::reflect}, exec);
  net->forward(wider.view(), out.view(), aux.view(), exec);
  compare_image(slug, "output.aux", aux.view(), golden, kModelBound, report);
}

const Runner kSwin2sr{
    "swin2sr", "swin2sr*.safetensors: a Swin2SR network, the authors' or Hugging Face's, param.* inside",
    [](const Path& path) {
      return path.extension() == ".safetensors" && path.stem().string().starts_with("swin2sr");
    },
    [](const Path& path, Report& report) {
      const auto file = std::make_shared<const SafetensorsFile>(path.string());
      const auto weights = embedded_parameters(file);
      const std::string slug = path.stem().string();
      check_restoration(slug, "Swin2SR", config_of(*file), *weights, *file, report);
      if (file->contains("mid.conv_first")) check_parts(slug, config_of(*file), *weights, *file, report);
      if (file->contains("output.aux")) check_aux(slug, config_of(*file), *weights, *file, report);
    }};
const Registration kRegistered(kSwin2sr);

}  // namespace
}  // namespace ashlar::golden
