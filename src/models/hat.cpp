// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hat.hpp"

#include <cmath>

#include "ashlar/models/hf_config.hpp"
#include "src/models/common/model.hpp"
#include "src/models/common/swin_config.hpp"

namespace ashlar {
inline namespace v0 {

template class HatGroup<CpuExec>;

namespace {

// The keys' windows: their table has (window + overlap - 1)^2 rows; int(window overlap_ratio) + window.
Index overlap_of(const Value& config, std::optional<Index> rows, Index window) {
  std::optional<Index> seen;
  if (rows) {
    const auto side = static_cast<Index>(std::llround(std::sqrt(static_cast<double>(*rows))));
    seen = side + 1 - window;
    if (side * side != *rows || *seen < window)
      throw Error("InvalidShape", concat("checkpoint: a table of overlapping windows has ", *rows,
                                         " rows, expected the square of at least ", 2 * window - 1));
  }
  if (seen && given(config, "overlap_ratio") == nullptr) return *seen;
  const double ratio = config.get_number("overlap_ratio", 0.5);
  if (!(ratio >= 0 && ratio <= 64))
    throw Error("InvalidConfig",
                concat("config: \"overlap_ratio\" is ", ratio, ", expected a number from 0 to 64"));
  const Index said = static_cast<Index>(ratio * static_cast<double>(window)) + window;
  if (seen && *seen != said)
    throw Error("InvalidConfig", concat("config: \"overlap_ratio\" ", ratio, " makes windows of ", said,
                                        ", but the checkpoint has a table for windows of ", *seen));
  if ((said - window) % 2 != 0)
    unsupported("overlap_ratio", std::to_string(ratio), "windows that are larger by an even number");
  return said;
}

// int(channels / ratio) of them.
Index part_of(const Value& config, std::string_view ratio, Index channels, std::optional<Index> seen,
              Index otherwise) {
  if (seen && given(config, ratio) == nullptr) return *seen;
  const Index said = channels / positive(config, ratio, otherwise);
  if (said < 1 || (seen && *seen != said))
    throw Error("InvalidConfig", concat("config: \"", ratio, "\" leaves ", said, " of ", channels,
                                        " channels, expected ", seen.value_or(1), seen ? "" : " or more"));
  return said;
}

}  // namespace

HatConfig HatConfig::from(const Value& config, const Parameters& parameters) {
  const SwinTensors tensors{"layers", "residual_group.blocks", "attn.relative_position_bias_table", 1,
                            "mlp.fc1.weight"};
  const CheckpointShape shape(parameters);
  HatConfig c;
  static_cast<RestorationConfig&>(c) = RestorationConfig::from(config, parameters);
  c.architecture = "HAT";
  if (c.reconstruction.upsampler != Upsampler::pixelshuffle)
    unsupported("upsampler", config.get_string("upsampler", ""), "\"pixelshuffle\"");
  if (c.connection == ResidualConvKind::three)
    unsupported("resi_connection", "3conv", "\"1conv\", \"identity\"");
  const std::string block = "layers.0.residual_group.blocks.0.";
  const auto rows = shape.extent(block + "attn.relative_position_bias_table", 0);
  read_swin_layers(config, shape, tensors, window_of_table(rows), 7, c);
  if (c.window != c.multiple)
    unsupported("img_size", std::to_string(c.window), "no less than \"window_size\"");
  c.overlap = overlap_of(
      config, shape.extent("layers.0.residual_group.overlap_attn.relative_position_bias_table", 0), c.window);
  c.compressed =
      part_of(config, "compress_ratio", c.channels, shape.extent(block + "conv_block.cab.0.weight", 0), 3);
  c.squeezed = part_of(config, "squeeze_factor", c.channels,
                       shape.extent(block + "conv_block.cab.3.attention.1.bias", 0), 30);
  c.conv_scale = static_cast<float>(config.get_number("conv_scale", 0.01));
  if (!std::isfinite(c.conv_scale))
    throw Error("InvalidConfig", "config: \"conv_scale\" is not a finite number");
  return c;
}

namespace {

constexpr std::string_view kAlways[] = {
    "conv_first.weight",
    "patch_embed.norm.weight",
    "layers.*.residual_group.blocks.*.norm1.weight",
    "layers.*.residual_group.blocks.*.attn.relative_position_bias_table",
    "layers.*.residual_group.blocks.*.attn.qkv.weight",
    "layers.*.residual_group.blocks.*.attn.proj.weight",
    "layers.*.residual_group.blocks.*.conv_block.cab.0.weight",
    "layers.*.residual_group.blocks.*.conv_block.cab.2.weight",
    "layers.*.residual_group.blocks.*.conv_block.cab.3.attention.1.weight",
    "layers.*.residual_group.blocks.*.conv_block.cab.3.attention.3.weight",
    "layers.*.residual_group.blocks.*.norm2.weight",
    "layers.*.residual_group.blocks.*.mlp.fc1.weight",
    "layers.*.residual_group.blocks.*.mlp.fc2.weight",
    "layers.*.residual_group.overlap_attn.norm1.weight",
    "layers.*.residual_group.overlap_attn.qkv.weight",
    "layers.*.residual_group.overlap_attn.relative_position_bias_table",
    "layers.*.residual_group.overlap_attn.proj.weight",
    "layers.*.residual_group.overlap_attn.norm2.weight",
    "layers.*.residual_group.overlap_attn.mlp.fc1.weight",
    "layers.*.residual_group.overlap_attn.mlp.fc2.weight",
    "norm.weight",
    "conv_before_upsample.0.weight",
    "conv_last.weight",
};
constexpr std::string_view kSometimes[] = {
    "relative_position_index_SA|relative_position_index_OCA",
    "conv_first.bias|patch_embed.norm.bias|norm.bias",
    "layers.*.residual_group.blocks.*.*.bias|layers.*.residual_group.blocks.*.*.*.bias",
    "layers.*.residual_group.blocks.*.conv_block.cab.*.bias",
    "layers.*.residual_group.blocks.*.conv_block.cab.3.attention.*.bias",
    "layers.*.residual_group.overlap_attn.*.bias|layers.*.residual_group.overlap_attn.mlp.*.bias",
    "layers.*.conv.weight|layers.*.conv.bias|conv_after_body.weight|conv_after_body.bias",
    "conv_before_upsample.0.bias|upsample.*.weight|upsample.*.bias|conv_last.bias",
};

std::unique_ptr<RestorationModel<CpuExec>> load(const Value& config, const Parameters& parameters,
                                                CpuExec& exec) {
  return load_hat(config, parameters, exec);
}

}  // namespace

extern const Model model_hat;
const Model model_hat{
    .type = "hat", .architecture = "HAT", .restoration = load, .keys = {kAlways, kSometimes}};

}  // namespace v0
}  // namespace ashlar
