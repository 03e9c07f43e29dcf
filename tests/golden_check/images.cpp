// SPDX-License-Identifier: Apache-2.0
#include "tests/golden_check/images.hpp"

#include <algorithm>

#include "ashlar/io/huggingface.hpp"
#include "ashlar/models/restoration_net.hpp"

namespace ashlar::golden {
namespace {

constexpr double kModelBound = 1e-4;

// The first of these that the golden has; empty: none.
std::string present(const Parameters& golden, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (golden.contains(name)) return name;
  return {};
}

}  // namespace

Tensor<float, 4> image_of(const Parameters& golden, const std::string& name) {
  const std::vector<Index> s = golden.at(name).shape;
  if (s.size() != 4) throw Error("InvalidShape", concat("golden: \"", name, "\" is not [N, C, H, W]"));
  const Tensor<float, 1> flat = floats(golden, name);
  Tensor<float, 4> image({s[0], s[2], s[3], s[1]});
  for (Index n = 0, i = 0; n < s[0]; ++n)
    for (Index c = 0; c < s[1]; ++c)
      for (Index h = 0; h < s[2]; ++h)
        for (Index w = 0; w < s[3]; ++w) image.view()(n, h, w, c) = flat.data()[i++];
  return image;
}

Tensor<float, 4> tokens_of(const Parameters& golden, const std::string& name, std::array<Index, 2> size) {
  const std::vector<Index> s = golden.at(name).shape;
  if (s.size() != 3 || s[1] != size[0] * size[1])
    throw Error("InvalidShape", concat("golden: \"", name, "\" is not [N, ", size[0] * size[1], ", C]"));
  const Tensor<float, 1> flat = floats(golden, name);
  Tensor<float, 4> image({s[0], size[0], size[1], s[2]});
  std::copy_n(flat.data(), flat.size(), image.data());
  return image;
}

void compare_image(const std::string& slug, const std::string& name, View<const float, 4> got,
                   const Parameters& golden, double bound, Report& report) {
  const std::array<Index, 4> s = got.shape;
  Tensor<float, 1> theirs({got.size()});
  Index i = 0;
  if (golden.at(name).shape.size() == 4) {
    for (Index n = 0; n < s[0]; ++n)
      for (Index c = 0; c < s[3]; ++c)
        for (Index h = 0; h < s[1]; ++h)
          for (Index w = 0; w < s[2]; ++w) theirs.data()[i++] = got(n, h, w, c);
  } else {
    for (Index n = 0; n < s[0]; ++n)
      for (Index h = 0; h < s[1]; ++h)
        for (Index w = 0; w < s[2]; ++w)
          for (Index c = 0; c < s[3]; ++c) theirs.data()[i++] = got(n, h, w, c);
  }
  report.compare(slug, name, theirs.data(), theirs.size(), floats(golden, name), bound);
}

bool is_golden(const Path& path, std::initializer_list<const char*> stems) {
  const std::string stem = path.stem().string();
  return path.extension() == ".safetensors" &&
         std::any_of(stems.begin(), stems.end(), [&](const char* name) { return stem == name; });
}

Value config_of(const SafetensorsFile& file) {
  const auto found = file.metadata().find("config");
  return found == file.metadata().end() ? Value() : parse_config(found->second, "the golden's config");
}

void check_restoration(const std::string& slug, const std::string& architecture, const Value& config,
                       const Parameters& weights, const Parameters& golden, Report& report) {
  CpuExec exec;
  const auto model = load_restoration_model(config, weights, exec);
  report.check(slug, "architecture", model->info().architecture == architecture, model->info().architecture);
  const Tensor<float, 4> in =
      image_of(golden, present(golden, {"input.lq", "input.pixel_values", "input.x"}));
  const auto [images, height, width, channels] = in.shape();
  const Index scale = model->scale();
  Tensor<float, 4> out({images, scale * height, scale * width, model->info().out_channels});
  model->run(in.view(), out.view(), exec);
  compare_image(slug, present(golden, {"output.sr", "output.reconstruction", "output.y"}), out.view(), golden,
                kModelBound, report);
}

}  // namespace ashlar::golden
