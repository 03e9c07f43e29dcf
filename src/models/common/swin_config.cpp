// SPDX-License-Identifier: Apache-2.0
#include "src/models/common/swin_config.hpp"

#include "ashlar/models/hf_config.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// The smaller side of "img_size", which is a number or a list of two; 0 where it is not given.
Index training_size(const Value& config) {
  const Keys keys{"img_size", "image_size"};
  const Value* v = setting(config, keys);
  if (v == nullptr) return 0;
  if (v->array() == nullptr) return agreed(config, keys, std::nullopt, "images of training");
  const std::vector<Index> sides = agreed_list(config, keys, {}, "images of training");
  return *std::min_element(sides.begin(), sides.end());
}

}  // namespace

void expect_swin_settings(const Value& config) {
  expect_setting(config, "patch_size", Value(std::int64_t{1}));
  expect_setting(config, "patch_norm", Value(true));
  expect_setting(config, "ape", Value(false));
  expect_setting(config, "use_absolute_embeddings", Value(false));
  expect_setting(config, "qk_scale", Value());
  expect_setting(config, "qkv_bias", Value(true));
}

void read_swin_window(const Value& config, std::optional<Index> seen, std::optional<Index> otherwise,
                      SwinirConfig& c) {
  const Index side = training_size(config);
  if (side != 0 && given(config, "window_size") != nullptr && side <= positive(config, "window_size")) {
    c.multiple = positive(config, "window_size"), c.window = side, c.shifted = false;
    if (seen && *seen != side)
      throw Error("InvalidConfig",
                  concat("config: images of training have ", side, " pixels, but the checkpoint ",
                         "has a position bias for windows of ", *seen));
  } else {
    c.multiple = c.window =
        agreed(config, {"window_size"}, seen, "the window of its position bias", otherwise);
    c.shifted = side == 0 || side > c.window;
  }
}

void read_swin_layers(const Value& config, const CheckpointShape& shape, const SwinTensors& tensors,
                      std::optional<Index> window, std::optional<Index> default_window, SwinirConfig& c) {
  expect_swin_settings(config);
  const auto blocks = [&](Index group) { return concat(tensors.groups, ".", group, ".", tensors.blocks); };
  std::vector<std::optional<Index>> depths, heads;
  for (Index g = 0; g < c.groups && shape.known(); ++g) {
    depths.push_back(shape.count(blocks(g)));
    heads.push_back(shape.extent(concat(blocks(g), ".0.", tensors.heads), tensors.heads_axis));
  }
  c.depths = agreed_list(config, {"depths"}, depths, "layers of its groups");
  c.heads = agreed_list(config, {"num_heads"}, heads, "heads of its groups");
  if (c.heads.size() != c.depths.size())
    throw Error("InvalidConfig", concat("config: \"num_heads\" has ", c.heads.size(),
                                        " entries, expected one for each of ", c.depths.size(), " groups"));
  c.hidden =
      agreed_width(config, {"mlp_ratio"}, c.channels,
                   shape.extent(concat(blocks(0), ".0.", tensors.hidden), 0), "the width of its MLPs", 4);
  read_swin_window(config, window, default_window, c);
  // Released networks against JPEG artifacts, which are those with windows of 7, count to 255.
  if (given(config, "img_range") == nullptr && c.window == 7 &&
      c.reconstruction.upsampler == Upsampler::convolution)
    c.range = 255;
}

}  // namespace v0
}  // namespace ashlar
