// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/rgt.hpp"

#include <cmath>

#include "ashlar/models/hf_config.hpp"
#include "src/models/common/checkpoint_shape.hpp"
#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

template class RgtGroup<CpuExec>;

namespace {

// The window of the first branch, from its buffer of distances (dy, dx), which reach from 1 - window to
// window - 1.
std::optional<std::array<Index, 2>> seen_split(const Parameters& parameters, const CheckpointShape& shape) {
  const char* name = "layers.0.blocks.0.attn.attns.0.rpe_biases";
  if (!shape.contains(name) || shape.extent(name, 1) != 2) return {};
  const Tensor<float, 1> distances = to_floats(parameters.at(name));
  std::array<Index, 2> split{0, 0};
  for (Index i = 0; i < distances.size(); ++i) {
    const float d = std::abs(distances.data()[i]);
    if (!(d < 65536)) throw Error("InvalidTensor", concat("checkpoint: \"", name, "\" holds ", d));
    Index& side = split[static_cast<std::size_t>(i % 2)];
    side = std::max(side, static_cast<Index>(d) + 1);
  }
  if ((2 * split[0] - 1) * (2 * split[1] - 1) * 2 != distances.size())
    throw Error("InvalidShape", concat("checkpoint: \"", name, "\" has ", distances.size(),
                                       " elements, expected two for each distance in windows of ", split[0],
                                       " x ", split[1]));
  return split;
}

void read_groups(const Value& config, const CheckpointShape& shape, RgtConfig& c) {
  std::vector<std::optional<Index>> depths, heads;
  for (Index g = 0; g < c.groups && shape.known(); ++g) {
    depths.push_back(shape.count(concat("layers.", g, ".blocks")));
    auto half = shape.extent(concat("layers.", g, ".blocks.0.attn.attns.0.pos.pos3.2.weight"), 0);
    if (half) *half *= 2;
    heads.push_back(half);
  }
  c.depths = agreed_list(config, {"depth", "depths"}, depths, "layers of its groups");
  c.heads = agreed_list(config, {"num_heads"}, heads, "heads of its groups");
  if (c.heads.size() != c.depths.size())
    throw Error("InvalidConfig", concat("config: \"num_heads\" has ", c.heads.size(),
                                        " entries, expected one for each of ", c.depths.size(), " groups"));
  for (Index h : c.heads)
    if (h % 2 != 0 || c.channels % h != 0)
      unsupported("num_heads", std::to_string(h), concat("an even divisor of ", c.channels, " channels"));
}

// int(channels c_ratio) channels of queries and keys. Without a configuration, the ratio is theirs.
void read_ratio(const Value& config, const CheckpointShape& shape, RgtConfig& c) {
  std::optional<Index> seen;
  for (Index g = 0; g < c.groups && !seen; ++g)
    seen = shape.extent(concat("layers.", g, ".blocks.1.attn.q.weight"), 0);
  c.reduced = agreed_width(config, {"c_ratio"}, c.channels, seen, "the queries of its RG-SA", 0.5);
  c.ratio =
      positive_number(config, "c_ratio", static_cast<double>(c.reduced) / static_cast<double>(c.channels));
}

}  // namespace

RgtConfig RgtConfig::from(const Value& config, const Parameters& parameters) {
  const CheckpointShape shape(parameters);
  RestorationNames names;
  names.embed_norm = "before_RG.1";
  RgtConfig c;
  static_cast<RestorationConfig&>(c) = RestorationConfig::from(config, parameters, names);
  c.architecture = "RGT";
  if (c.reconstruction.upsampler != Upsampler::pixelshuffle)
    unsupported("upsampler", config.get_string("upsampler", ""), "\"pixelshuffle\"");
  if (c.connection == ResidualConvKind::identity)
    unsupported("resi_connection", "identity", "\"1conv\", \"3conv\"");
  expect_setting(config, "qk_scale", Value());
  read_groups(config, shape, c);
  read_ratio(config, shape, c);
  const auto seen = seen_split(parameters, shape);
  const std::vector<Index> split = agreed_list(
      config, {"split_size"},
      seen ? std::vector<std::optional<Index>>{(*seen)[0], (*seen)[1]} : std::vector<std::optional<Index>>(),
      "distances in its windows");
  if (split.size() != 2)
    throw Error("InvalidConfig", concat("config: \"split_size\" has ", split.size(), " entries, expected 2"));
  c.split = {split[0], split[1]};
  constexpr Index kMostTokens = 4096;  // of a window, whose bias has an entry for each pair
  if (split[0] * split[1] > kMostTokens)
    unsupported("split_size", concat("[", split[0], ", ", split[1], "]"), "windows of at most 4096 pixels");
  const Index longer = std::max(split[0], split[1]);
  if (longer % split[0] != 0 || longer % split[1] != 0)
    unsupported("split_size", concat("[", split[0], ", ", split[1], "]"),
                "sides of which one divides the other");
  c.hidden = agreed_width(config, {"mlp_ratio"}, c.channels,
                          shape.extent("layers.0.blocks.0.mlp.fc1.weight", 0), "the width of its MLPs", 2);
  if (c.hidden % 2 != 0)
    unsupported("mlp_ratio", std::to_string(c.hidden), "a ratio that makes an even number of channels");
  const bool biased = shape.contains("layers.0.blocks.0.attn.qkv.bias");
  c.biased = config.get_boolean("qkv_bias", !shape.known() || biased);
  if (shape.known() && c.biased != biased)
    throw Error("InvalidConfig", concat("config: \"qkv_bias\" is ", c.biased ? "true" : "false",
                                        ", which the checkpoint contradicts"));
  return c;
}

namespace {

constexpr std::string_view kAlways[] = {
    "conv_first.weight",
    "before_RG.1.weight",
    "layers.*.blocks.*.gamma",
    "layers.*.blocks.*.norm1.weight",
    "layers.*.blocks.*.attn.qkv.weight",
    "layers.*.blocks.*.attn.get_v.weight",
    "layers.*.blocks.*.attn.attns.*.pos.pos_proj.weight",
    "layers.*.blocks.*.attn.attns.*.pos.*.*.weight",
    "layers.*.blocks.*.attn.proj.weight",
    "layers.*.blocks.*.norm2.weight",
    "layers.*.blocks.*.mlp.fc1.weight",
    "layers.*.blocks.*.mlp.sg.norm.weight",
    "layers.*.blocks.*.mlp.sg.conv.weight",
    "layers.*.blocks.*.mlp.fc2.weight",
    "layers.*.conv.weight|layers.*.conv.0.weight",
    "norm.weight",
    "conv_after_body.weight|conv_after_body.0.weight",
    "conv_before_upsample.0.weight",
    "conv_last.weight",
};
constexpr std::string_view kSometimes[] = {
    "conv_first.bias|before_RG.1.bias|norm.bias",
    "layers.*.blocks.*.*.bias|layers.*.blocks.*.mlp.*.bias|layers.*.blocks.*.mlp.sg.*.bias",
    "layers.*.blocks.*.attn.*.bias|layers.*.blocks.*.attn.attns.*.**",
    "layers.*.blocks.*.attn.attn_mask_0|layers.*.blocks.*.attn.attn_mask_1",
    "layers.*.blocks.*.attn.reduction1.weight|layers.*.blocks.*.attn.dwconv.weight",
    "layers.*.blocks.*.attn.conv.weight|layers.*.blocks.*.attn.norm_act.0.*",
    "layers.*.blocks.*.attn.q.weight|layers.*.blocks.*.attn.k.weight|layers.*.blocks.*.attn.v.weight",
    "layers.*.blocks.*.attn.cpe.weight",
    "layers.*.conv.bias|layers.*.conv.*.weight|layers.*.conv.*.bias",
    "conv_after_body.bias|conv_after_body.*.weight|conv_after_body.*.bias",
    "conv_before_upsample.0.bias|upsample.*.weight|upsample.*.bias|conv_last.bias",
};

std::unique_ptr<RestorationModel<CpuExec>> load(const Value& config, const Parameters& parameters,
                                                CpuExec& exec) {
  return load_rgt(config, parameters, exec);
}

}  // namespace

extern const Model model_rgt;
const Model model_rgt{
    .type = "rgt", .architecture = "RGT", .restoration = load, .keys = {kAlways, kSometimes}};

}  // namespace v0
}  // namespace ashlar
