// SPDX-License-Identifier: Apache-2.0
// Small restoration networks with random weights, as checkpoints whose tensors have names.
#pragma once
#include <algorithm>
#include <memory>

#include "ashlar/io/json.hpp"
#include "ashlar/models/restoration_model.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "tests/support.hpp"

namespace ashlar::test {

struct Network {
  const char *name, *architecture, *config;
};
inline void PrintTo(const Network& n, std::ostream* out) { *out << n.name; }

inline constexpr Network kNetworks[] = {
    {"swinir_x4", "SwinIR", R"({"embed_dim": 20, "depths": [2, 1], "num_heads": [5, 2], "window_size": 4,
      "mlp_ratio": 1.7, "upscale": 4, "upsampler": "pixelshuffle", "num_feat": 6})"},
    {"swinir_x3", "SwinIR", R"({"embed_dim": 12, "depths": [2], "num_heads": [3], "window_size": 5,
      "mlp_ratio": 2, "upscale": 3, "upsampler": "pixelshuffle", "num_feat": 5, "img_range": 255.0,
      "resi_connection": "3conv"})"},
    {"swinir_light_x3", "SwinIR", R"({"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4,
      "mlp_ratio": 2, "upscale": 3, "upsampler": "pixelshuffledirect"})"},
    {"swinir_real_x4", "SwinIR", R"({"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4,
      "mlp_ratio": 2, "upscale": 4, "upsampler": "nearest+conv", "num_feat": 7, "resi_connection": "3conv"})"},
    {"swinir_real_x2", "SwinIR", R"({"embed_dim": 10, "depths": [1], "num_heads": [2], "window_size": 3,
      "mlp_ratio": 2, "upscale": 2, "upsampler": "nearest+conv", "num_feat": 4})"},
    {"swinir_jpeg", "SwinIR", R"({"embed_dim": 12, "depths": [2], "num_heads": [3], "window_size": 7,
      "mlp_ratio": 2, "upscale": 1, "upsampler": "", "in_chans": 1, "img_range": 255.0})"},
    {"swin2sr_x2", "Swin2SR", R"({"embed_dim": 12, "depths": [2, 1], "num_heads": [3, 2], "window_size": 4,
      "mlp_ratio": 2, "upscale": 2, "upsampler": "pixelshuffle", "num_feat": 6})"},
    {"swin2sr_compressed_x4", "Swin2SR", R"({"embed_dim": 12, "depths": [2], "num_heads": [2],
      "window_size": 5, "mlp_ratio": 2, "upscale": 4, "upsampler": "pixelshuffle_aux", "num_feat": 6})"},
    {"swin2sr_jpeg", "Swin2SR", R"({"embed_dim": 12, "depths": [2], "num_heads": [3], "window_size": 7,
      "mlp_ratio": 2, "upscale": 1, "upsampler": "", "in_chans": 1, "img_range": 255.0})"},
    {"hat_x2", "HAT", R"({"embed_dim": 12, "depths": [2, 1], "num_heads": [3, 2], "window_size": 4,
      "compress_ratio": 3, "squeeze_factor": 4, "mlp_ratio": 2, "upscale": 2, "upsampler": "pixelshuffle",
      "num_feat": 6})"},
    {"drct_x3", "DRCT", R"({"embed_dim": 12, "depths": [1, 1], "num_heads": [3, 3], "window_size": 3, "gc": 6,
      "mlp_ratio": 2, "upscale": 3, "upsampler": "pixelshuffle", "num_feat": 5})"},
};

// Random weights that remember what was asked of them.
class RecordedParameters : public ParameterSource {
 public:
  explicit RecordedParameters(ParameterMap& record)
      : record_(&record),
        random_(DType::f32, 1, [](std::string_view name) { return !name.ends_with("q_bias"); }),
        random_v2_(DType::f32, 1, [](std::string_view) { return true; }) {}
  // SwinV2's biases of queries and values are apart.
  void v2() { is_v2_ = true; }

  std::vector<std::string> names() const override { return {}; }
  bool find(std::string_view name, Parameter* into) const override { return random().find(name, into); }
  Parameter make(std::string_view name, std::span<const Index> shape) const override {
    Parameter p = random().make(name, shape);
    record_->set(std::string(name), p);
    return p;
  }

 private:
  const RandomParameters& random() const { return is_v2_ ? random_v2_ : random_; }
  ParameterMap* record_;
  RandomParameters random_, random_v2_;
  bool is_v2_ = false;
};

inline Value parsed(const char* config) { return parse_json(config, "a test's config"); }

// The checkpoint of a network.
inline ParameterMap checkpoint(const Network& n, CpuExec& exec) {
  ParameterMap map;
  RecordedParameters recorded(map);
  if (std::string_view(n.architecture) == "Swin2SR") recorded.v2();
  load_restoration_model(parsed(n.config), recorded, exec, {.architecture = n.architecture});
  return map;
}

// A configuration with some members in front of it.
inline Value with(const char* config, const char* changes) {
  Value::Object merged = *parsed(changes).object();
  const Value rest = parsed(config);
  for (const auto& [name, value] : *rest.object()) merged.emplace_back(name, value);
  return merged;
}

inline Tensor<float, 4> random_image(Index images, Index height, Index width, Index channels) {
  std::mt19937 rng(5);
  std::uniform_real_distribution<float> u(0, 1);
  Tensor<float, 4> x({images, height, width, channels});
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = u(rng);
  return x;
}

// The result, of which nothing was left unwritten.
inline Tensor<float, 4> restored(const RestorationModel<CpuExec>& model, const Tensor<float, 4>& image,
                                 CpuExec& exec) {
  const Index s = model.scale();
  Tensor<float, 4> out(
      {image.shape()[0], s * image.shape()[1], s * image.shape()[2], model.info().out_channels});
  std::fill_n(out.data(), out.size(), std::numeric_limits<float>::quiet_NaN());
  model.run(image.view(), out.view(), exec);
  EXPECT_TRUE(std::all_of(out.data(), out.data() + out.size(), [](float x) { return std::isfinite(x); }));
  return out;
}

inline bool same_bits(const Tensor<float, 4>& a, const Tensor<float, 4>& b) {
  return a.shape() == b.shape() && std::equal(a.data(), a.data() + a.size(), b.data());
}

}  // namespace ashlar::test
