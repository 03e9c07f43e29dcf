// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/swinir.hpp"

#include "tests/golden_check/images.hpp"

namespace ashlar::golden {
namespace {

constexpr double kModelBound = 1e-4;

// What the network computes on the way, of the padded image.
void check_parts(const std::string& slug, const Value& config, const Parameters& weights,
                 const Parameters& golden, Report& report) {
  CpuExec exec;
  const SwinirConfig c = SwinirConfig::from(config, weights);
  const auto net = load_swinir(config, weights, exec);
  const auto same = [&](const char* name, View<const float, 4> got) {
    if (golden.contains(name)) compare_image(slug, name, got, golden, kModelBound, report);
  };
  const Tensor<float, 4> f = image_of(golden, "mid.conv_first");
  Tensor<float, 4> t(f.shape());
  net->parts().embed_norm(as_tokens(f.view()), as_tokens(t.view()), exec);
  const auto& group = dynamic_cast<const SwinirGroup<CpuExec>&>(*net->parts().groups.front());
  Tensor<float, 4> x = t;
  for (std::size_t i = 0; i < group.blocks().size(); ++i) {
    group.blocks()[i](x.view(), exec);
    same(concat("mid.layer0.block", i).c_str(), x.view());
  }
  for (std::size_t g = 0; g < net->parts().groups.size(); ++g) {
    net->parts().groups[g]->forward(t.view(), exec);
    same(concat("mid.layer", g).c_str(), t.view());
  }
  net->parts().norm(as_tokens(t.view()), as_tokens(t.view()), exec);
  Tensor<float, 4> y(f.shape()), zero(f.shape());
  net->parts().after_body(t.view(), zero.view(), y.view(), exec);
  same("mid.conv_after_body", y.view());
}

// X.golden.safetensors of a bundled model: X.safetensors beside it, or in examples/models/.
Path bundled_model(const Path& path) {
  const Path name = path.stem().stem().string() + ".safetensors", beside = path.parent_path() / name;
  return std::filesystem::exists(beside) ? beside : Path(ASHLAR_EXAMPLES) / "models" / name;
}

const Runner kSwinir{"swinir", "swinir*.safetensors: a SwinIR network, param.* inside",
                     [](const Path& path) {
                       return path.extension() == ".safetensors" && path.stem().extension().empty() &&
                              path.stem().string().starts_with("swinir");
                     },
                     [](const Path& path, Report& report) {
                       const auto file = std::make_shared<const SafetensorsFile>(path.string());
                       const auto weights = embedded_parameters(file);
                       const std::string slug = path.stem().string();
                       check_restoration(slug, "SwinIR", config_of(*file), *weights, *file, report);
                       if (file->contains("mid.conv_first"))
                         check_parts(slug, config_of(*file), *weights, *file, report);
                     }};
const Registration kRegistered(kSwinir);

const Runner kBundled{
    "swinir bundled",
    "swinir*.golden.safetensors beside swinir*.safetensors, or of a model in examples/models/",
    [](const Path& path) {
      return path.string().ends_with(".golden.safetensors") && path.stem().string().starts_with("swinir") &&
             std::filesystem::exists(bundled_model(path));
    },
    [](const Path& path, Report& report) {
      const SafetensorsFile model(bundled_model(path).string());
      check_restoration(path.stem().stem().string(), "SwinIR", config_of(model), model,
                        SafetensorsFile(path.string()), report);
    }};
const Registration kRegisteredBundled(kBundled);

}  // namespace
}  // namespace ashlar::golden
