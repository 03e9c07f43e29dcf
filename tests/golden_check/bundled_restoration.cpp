// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/restoration_model.hpp"
#include "tests/golden_check/images.hpp"

namespace ashlar::golden {
namespace {

Path bundled_file(const Path& path) {
  const std::string name = path.stem().stem().string() + ".safetensors";
  const Path beside = path.parent_path() / name;
  return std::filesystem::exists(beside) ? beside : Path(ASHLAR_EXAMPLES) / "models" / name;
}

const Runner kBundled{
    "bundled image model",
    "<model>.golden.safetensors beside <model>.safetensors, or of one in examples/models/",
    [](const Path& path) {
      return path.string().ends_with(".golden.safetensors") && std::filesystem::exists(bundled_file(path));
    },
    [](const Path& path, Report& report) {
      const SafetensorsFile weights(bundled_file(path).string()), golden(path.string());
      CpuExec exec;
      const auto model = load_restoration_model(config_of(weights), weights, exec);
      const Tensor<float, 4> in = image_of(golden, "input.x");
      const auto [images, height, width, channels] = in.shape();
      Tensor<float, 4> out(
          {images, model->scale() * height, model->scale() * width, model->info().out_channels});
      model->run(in.view(), out.view(), exec);
      compare_image(path.stem().stem().string(), "output.y", out.view(), golden, 1e-5, report);
    }};
const Registration kRegistered(kBundled);

}  // namespace
}  // namespace ashlar::golden
