// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/drct.hpp"

#include "ashlar/ops/pad2d.hpp"
#include "tests/golden_check/images.hpp"

namespace ashlar::golden {
namespace {

constexpr double kModelBound = 1e-4;

// What the network computes on the way, of the padded image.
void check_parts(const std::string& slug, const Value& config, const Parameters& weights,
                 const Parameters& golden, Report& report) {
  CpuExec exec;
  const DrctConfig c = DrctConfig::from(config, weights);
  const auto net = load_drct(config, weights, exec);
  const auto same = [&](const std::string& name, View<const float, 4> got) {
    if (golden.contains(name)) compare_image(slug, name, got, golden, kModelBound, report);
  };
  const Tensor<float, 4> image = image_of(golden, "input.lq");
  const auto [height, width] = net->padded({image.shape()[1], image.shape()[2]});
  const std::array<Index, 4> size{image.shape()[0], height, width, image.shape()[3]};
  Tensor<float, 4> padded(size), x(size), f({size[0], height, width, c.channels}), t(f.shape());
  pad2d(Pad2d{image.view(), padded.view(), PadMode::reflect}, exec);
  net->normalize(padded.view(), x.view(), exec);
  net->parts().first(x.view(), f.view(), exec);
  net->parts().embed_norm(as_tokens(f.view()), as_tokens(t.view()), exec);
  const auto& group = dynamic_cast<const DrctGroup<CpuExec>&>(*net->parts().groups.front());
  Tensor<float, 4> y = t;
  group.layers()[0](y.view(), exec);
  same("mid.layer0.swin1", y.view());
  Tensor<float, 4> wide({size[0], height, width, c.channels + c.growth});
  const View<float, 4> grown = wide.view().slice(3, c.channels, c.channels + c.growth);
  group.adjust()[0](y.view(), grown, exec);
  // Theirs is from before the leaky ReLU, of slope 0.2.
  Tensor<float, 4> before({size[0], height, width, c.growth});
  for (Index i = 0; i < before.size(); ++i) {
    const float u = grown.data[i / c.growth * grown.strides[2] + i % c.growth];
    before.data()[i] = u < 0 ? u / 0.2f : u;
  }
  same("mid.layer0.adjust1", before.view());
  for (Index i = 0; i < t.size(); ++i)
    wide.data()[i / c.channels * (c.channels + c.growth) + i % c.channels] = t.data()[i];
  group.layers()[1](wide.view(), exec);
  same("mid.layer0.swin2", wide.view());
  for (std::size_t g = 0; g < net->parts().groups.size(); ++g) {
    net->parts().groups[g]->forward(t.view(), exec);
    same(concat("mid.layer", g), t.view());
  }
  if (!net->parts().after_body) return;
  net->parts().norm(as_tokens(t.view()), as_tokens(t.view()), exec);
  Tensor<float, 4> body(f.shape()), zero(f.shape());
  net->parts().after_body(t.view(), zero.view(), body.view(), exec);
  same("mid.conv_after_body", body.view());
}

const Runner kDrct{"drct", "drct*.safetensors: a DRCT network, param.* inside",
                   [](const Path& path) {
                     return path.extension() == ".safetensors" && path.stem().string().starts_with("drct");
                   },
                   [](const Path& path, Report& report) {
                     const auto file = std::make_shared<const SafetensorsFile>(path.string());
                     const auto weights = embedded_parameters(file);
                     const std::string slug = path.stem().string();
                     check_restoration(slug, "DRCT", config_of(*file), *weights, *file, report);
                     check_parts(slug, config_of(*file), *weights, *file, report);
                   }};
const Registration kRegistered(kDrct);

}  // namespace
}  // namespace ashlar::golden
