// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/swin.hpp"

#include <cmath>

#include "ashlar/models/hf_config.hpp"
#include "src/models/common/checkpoint_shape.hpp"
#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

template class PatchMerging<CpuExec>;
template class SwinTransformer<CpuExec>;

namespace {

Index root_of(Index square) {
  return static_cast<Index>(std::llround(std::sqrt(static_cast<double>(square))));
}

std::string block_name(Index stage, Index block) { return concat("layers.", stage, ".blocks.", block, "."); }

// The window of a stage, from its position bias or a buffer.
std::optional<Index> seen_window(const CheckpointShape& shape, Index stage) {
  const std::string attention = block_name(stage, 0) + "attn.";
  if (const auto rows = shape.extent(attention + "relative_position_bias_table", 0))
    return window_of_table(rows);
  if (const auto side = shape.extent(attention + "relative_coords_table", 1)) return (*side + 1) / 2;
  const auto tokens = shape.extent(attention + "relative_position_index", 0);
  return tokens ? std::optional(root_of(*tokens)) : std::nullopt;
}

// The side of the first stage's map, from its mask: [windows, tokens, tokens].
std::optional<Index> seen_resolution(const CheckpointShape& shape) {
  const std::string mask = block_name(0, 1) + "attn_mask";
  const auto windows = shape.extent(mask, 0), tokens = shape.extent(mask, 1);
  return windows && tokens ? std::optional(root_of(*windows) * root_of(*tokens)) : std::nullopt;
}

void read_stages(const Value& config, const CheckpointShape& shape, SwinConfig& c) {
  std::vector<std::optional<Index>> depths, heads;
  const Index stages = shape.count("layers").value_or(0);
  for (Index s = 0; s < stages; ++s) {
    depths.push_back(shape.count(concat("layers.", s, ".blocks")));
    heads.push_back(c.v2 ? shape.extent(block_name(s, 0) + "attn.logit_scale", 0)
                         : shape.extent(block_name(s, 0) + "attn.relative_position_bias_table", 1));
  }
  c.depths = agreed_list(config, {"depths"}, depths, "layers of its stages");
  c.heads = agreed_list(config, {"num_heads"}, heads, "heads of its stages");
  if (c.heads.size() != c.depths.size() || c.stages() > 8)
    throw Error("InvalidConfig",
                concat("config: \"num_heads\" has ", c.heads.size(), " entries, expected one for each of ",
                       c.depths.size(), " stages, at most 8"));
  for (Index s = 0; s < c.stages(); ++s)
    c.hidden.push_back(agreed_width(config, {"mlp_ratio"}, c.channels << s,
                                    shape.extent(block_name(s, 0) + "mlp.fc1.weight", 0),
                                    "the width of its MLPs", 4));
  c.pretrained.assign(c.depths.size(), 0);
  const Value* pretrained = given(config, "pretrained_window_sizes");
  if (pretrained == nullptr) return;
  const Value::Array* list = pretrained->array();
  if (list == nullptr || list->size() != c.depths.size())
    throw Error("InvalidConfig",
                "config: \"pretrained_window_sizes\" is not a list with an entry for each stage");
  for (std::size_t s = 0; s < list->size(); ++s) {
    const auto* size = (*list)[s].integer();
    if (size == nullptr || *size < 0 || *size == 1)
      throw Error("InvalidConfig",
                  "config: \"pretrained_window_sizes\" has an entry that is no window, nor 0");
    c.pretrained[s] = static_cast<Index>(*size);
  }
}

void check_windows(const CheckpointShape& shape, const SwinConfig& c) {
  for (Index s = 0; s < c.stages(); ++s) {
    const Index side = std::min(c.window, c.resolution(s));
    if (s + 1 < c.stages() && c.resolution(s) % 2 != 0)
      throw Error("InvalidConfig",
                  concat("config: images of ", c.image, " pixels have an odd side in stage ", s));
    if (c.resolution(s) % side != 0)
      throw Error("InvalidConfig", concat("config: windows of ", side, " do not divide the ", c.resolution(s),
                                          " patches of stage ", s));
    if (const auto seen = seen_window(shape, s); seen && *seen != side)
      throw Error("InvalidConfig",
                  concat("config: windows of ", side, " in stage ", s, ", but the checkpoint has ", *seen));
  }
}

}  // namespace

SwinConfig SwinConfig::from(const Value& config, const Parameters& parameters) {
  const CheckpointShape shape(parameters);
  expect_setting(config, "ape", Value(false));
  expect_setting(config, "patch_norm", Value(true));
  expect_setting(config, "qk_scale", Value());
  SwinConfig c;
  c.v2 = shape.known() ? shape.contains(block_name(0, 0) + "attn.cpb_mlp.0.weight")
                       : config.get_string("model_type", "swin") == "swinv2";
  const Names patches = "patch_embed.proj.weight";
  c.channels = agreed(config, {"embed_dim"}, shape.extent(patches, 0), "the patches' convolution");
  c.in_channels = agreed(config, {"in_chans"}, shape.extent(patches, 1), "the patches' convolution", 3);
  c.patch = agreed(config, {"patch_size"}, shape.extent(patches, 2), "the patches' convolution", 4);
  c.classes = !shape.known() || shape.contains("head.weight")
                  ? agreed(config, {"num_classes"}, shape.extent("head.weight", 0), "the head")
                  : 0;
  c.qkv_bias = config.get_boolean("qkv_bias", true);
  read_stages(config, shape, c);
  c.window = agreed(config, {"window_size"}, std::nullopt, "windows", seen_window(shape, 0));
  std::optional<Index> side = seen_resolution(shape);
  if (side) *side *= c.patch;
  c.image = agreed(config, {"img_size"}, side, "the size of the mask of shifted windows");
  if (c.image % c.patch != 0 || c.resolution(c.stages() - 1) < 1)
    throw Error("InvalidConfig", concat("config: \"img_size\" is ", c.image, ", expected a multiple of ",
                                        c.patch, " that ", c.stages(), " stages can halve"));
  check_windows(shape, c);
  return c;
}

namespace {

constexpr std::string_view kAlways[] = {
    "patch_embed.proj.weight",
    "patch_embed.norm.weight",
    "layers.*.blocks.*.norm1.weight",
    "layers.*.blocks.*.attn.relative_position_bias_table|layers.*.blocks.*.attn.logit_scale",
    "layers.*.blocks.*.attn.qkv.weight",
    "layers.*.blocks.*.attn.proj.weight",
    "layers.*.blocks.*.norm2.weight",
    "layers.*.blocks.*.mlp.fc1.weight",
    "layers.*.blocks.*.mlp.fc2.weight",
    "norm.weight",
};
constexpr std::string_view kSometimes[] = {
    "patch_embed.*.bias|norm.bias|head.weight|head.bias",
    "layers.*.downsample.reduction.weight|layers.*.downsample.norm.*",
    "layers.*.blocks.*.*.bias|layers.*.blocks.*.*.*.bias",
    "layers.*.blocks.*.attn_mask|layers.*.blocks.*.attn.relative_position_index",
    "layers.*.blocks.*.attn.relative_coords_table|layers.*.blocks.*.attn.cpb_mlp.*.*",
    "layers.*.blocks.*.attn.q_bias|layers.*.blocks.*.attn.v_bias",
};

}  // namespace

extern const Model model_swin;
const Model model_swin{.type = "swin", .architecture = "Swin", .keys = {kAlways, kSometimes}};

}  // namespace v0
}  // namespace ashlar
