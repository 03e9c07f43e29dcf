// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/dlgsanet.hpp"

#include "tests/golden_check/images.hpp"

namespace ashlar::golden {
namespace {

constexpr double kModelBound = 1e-4;

void check_parts(const std::string& slug, const Value& config, const Parameters& weights,
                 const Parameters& golden, Report& report) {
  CpuExec exec;
  const DlgsanetConfig c = DlgsanetConfig::from(config, weights);
  const auto net = load_dlgsanet(config, weights, exec);
  const auto same = [&](const std::string& name, View<const float, 4> got) {
    if (golden.contains(name)) compare_image(slug, name, got, golden, kModelBound, report);
  };
  const Tensor<float, 4> image = image_of(golden, "input.lq");
  const auto [images, height, width, channels] = image.shape();
  Tensor<float, 4> x(image.shape()), t({images, height, width, c.channels});
  net->normalize(image.view(), x.view(), exec);
  net->parts().first(x.view(), t.view(), exec);
  same("mid.overlap_embed", t.view());
  if (c.body_norm) net->parts().embed_norm(as_tokens(t.view()), as_tokens(t.view()), exec);
  for (std::size_t g = 0; g < net->parts().groups.size(); ++g) {
    const auto& group = dynamic_cast<const DlgsanetGroup<CpuExec>&>(*net->parts().groups[g]);
    Tensor<float, 4> y = t, n(t.shape());
    for (std::size_t i = 0; i < group.layers().size(); ++i) {
      const DlgsanetLayer<CpuExec>& layer = group.layers()[i];
      const std::string name = concat("mid.group", g, ".body", i);
      layer.norm1()(as_tokens(y.view()), as_tokens(n.view()), exec);
      if (golden.contains(name + ".dyn_kernel") && layer.local() != nullptr) {
        // Theirs has a group's taps beside each other.
        const Index taps = c.local_attention.kernel * c.local_attention.kernel,
                    groups = layer.local()->groups();
        Tensor<float, 5> kernels({images, height, width, taps, groups});
        Tensor<float, 4> theirs({images, height, width, groups * taps});
        layer.local()->kernels(n.view(), kernels.view(), exec);
        for (Index p = 0; p < images * height * width; ++p)
          for (Index k = 0; k < taps * groups; ++k)
            theirs.data()[p * taps * groups + k] =
                kernels.data()[p * taps * groups + k % taps * groups + k / taps];
        same(name + ".dyn_kernel", theirs.view());
      }
      layer.attend(n.view(), n.view(), exec);
      same(name + (layer.local() != nullptr ? ".mhdlsa" : ".sparsegsa"), n.view());
      layer(y.view(), exec);
      same(name, y.view());
    }
    group.forward(t.view(), exec);
    same(concat("mid.group", g), t.view());
  }
}

const Runner kDlgsanet{"dlgsanet", "dlgsanet*.safetensors: a DLGSANet, param.* inside",
                       [](const Path& path) {
                         return path.extension() == ".safetensors" &&
                                path.stem().string().starts_with("dlgsanet");
                       },
                       [](const Path& path, Report& report) {
                         const auto file = std::make_shared<const SafetensorsFile>(path.string());
                         const auto weights = embedded_parameters(file);
                         const std::string slug = path.stem().string();
                         check_restoration(slug, "DLGSANet", config_of(*file), *weights, *file, report);
                         check_parts(slug, config_of(*file), *weights, *file, report);
                       }};
const Registration kRegistered(kDlgsanet);

}  // namespace
}  // namespace ashlar::golden
