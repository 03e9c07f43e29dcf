// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/drct.hpp"

#include "ashlar/models/hf_config.hpp"
#include "src/models/common/model.hpp"
#include "src/models/common/swin_config.hpp"

namespace ashlar {
inline namespace v0 {

template class DrctGroup<CpuExec>;

namespace {

// Of each group's layers: what the tables of position biases say, and heads - width mod heads, which the
// authors make of "num_heads". Both must agree.
void read_heads(const Value& config, const CheckpointShape& shape, DrctConfig& c) {
  std::vector<std::optional<Index>> first;
  for (Index g = 0; g < c.groups && shape.known(); ++g)
    first.push_back(shape.extent(concat("layers.", g, ".swin1.attn.relative_position_bias_table"), 1));
  c.heads = agreed_list(config, {"num_heads"}, first, "heads of its groups");
  if (c.groups == 0) c.groups = static_cast<Index>(c.heads.size());
  if (static_cast<Index>(c.heads.size()) != c.groups)
    throw Error("InvalidConfig", concat("config: \"num_heads\" has ", c.heads.size(),
                                        " entries, expected one for each of ", c.groups, " groups"));
  for (Index g = 0; g < c.groups; ++g) {
    std::array<Index, DrctConfig::kLayers> heads{};
    for (Index i = 0; i < DrctConfig::kLayers; ++i) {
      const Index h = c.heads[static_cast<std::size_t>(g)], made = i == 0 ? h : h - c.width(i) % h;
      const auto seen =
          shape.extent(concat("layers.", g, ".swin", i + 1, ".attn.relative_position_bias_table"), 1);
      heads[static_cast<std::size_t>(i)] = seen.value_or(made);
      if (seen && *seen != made)
        throw Error("InvalidConfig", concat("checkpoint: layer ", i + 1, " of group ", g, " has ", *seen,
                                            " heads, expected ", made, ", as the first one has ", h));
    }
    c.layer_heads.push_back(heads);
  }
}

}  // namespace

DrctConfig DrctConfig::from(const Value& config, const Parameters& parameters) {
  const CheckpointShape shape(parameters);
  DrctConfig c;
  static_cast<RestorationConfig&>(c) = RestorationConfig::from(config, parameters);
  c.architecture = "DRCT";
  if (c.reconstruction.upsampler != Upsampler::pixelshuffle)
    unsupported("upsampler", config.get_string("upsampler", ""), "\"pixelshuffle\"");
  if (c.connection == ResidualConvKind::three)
    unsupported("resi_connection", "3conv", "\"1conv\", \"identity\"");
  expect_swin_settings(config);
  c.growth = agreed(config, {"gc"}, shape.extent("layers.0.adjust1.weight", 0), "its first convolution", 32);
  read_heads(config, shape, c);
  read_swin_window(
      config, window_of_table(shape.extent("layers.0.swin1.attn.relative_position_bias_table", 0)), 7, c);
  for (Index i = 0; i < kLayers; ++i) {
    const auto seen = shape.extent(concat("layers.0.swin", i + 1, ".mlp.fc1.weight"), 0);
    c.layer_hidden[static_cast<std::size_t>(i)] =
        i < 3 ? agreed_width(config, {"mlp_ratio"}, c.width(i), seen, "the width of an MLP", 4) : c.width(i);
  }
  return c;
}

namespace {

constexpr std::string_view kAlways[] = {
    "conv_first.weight",
    "patch_embed.norm.weight",
    "layers.*.swin1.attn.relative_position_bias_table",
    "layers.*.swin5.attn.relative_position_bias_table",
    "layers.*.*.norm1.weight",
    "layers.*.*.attn.relative_position_bias_table",
    "layers.*.*.attn.qkv.weight",
    "layers.*.*.attn.proj.weight",
    "layers.*.*.norm2.weight",
    "layers.*.*.mlp.fc1.weight",
    "layers.*.*.mlp.fc2.weight",
    "layers.*.adjust1.weight",
    "layers.*.adjust5.weight",
    "norm.weight",
    "conv_before_upsample.0.weight",
    "conv_last.weight",
};
constexpr std::string_view kSometimes[] = {
    "conv_first.bias|patch_embed.norm.bias|norm.bias",
    "layers.*.*.*.bias|layers.*.*.*.*.bias|layers.*.*.attn.relative_position_index|layers.*.*.attn_mask",
    "layers.*.*.weight|layers.*.*.bias",
    "conv_after_body.weight|conv_after_body.bias",
    "conv_before_upsample.0.bias|upsample.*.weight|upsample.*.bias|conv_last.bias",
};

std::unique_ptr<RestorationModel<CpuExec>> load(const Value& config, const Parameters& parameters,
                                                CpuExec& exec) {
  return load_drct(config, parameters, exec);
}

}  // namespace

extern const Model model_drct;
const Model model_drct{
    .type = "drct", .architecture = "DRCT", .restoration = load, .keys = {kAlways, kSometimes}};

}  // namespace v0
}  // namespace ashlar
