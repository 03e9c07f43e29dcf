// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/dlgsanet.hpp"

#include "ashlar/models/hf_config.hpp"
#include "src/models/common/checkpoint_shape.hpp"
#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

template class DlgsanetGroup<CpuExec>;

namespace {

std::string one_of(const Value& config, const char* key, std::string_view otherwise,
                   std::initializer_list<std::string_view> known) {
  const std::string said =
      given(config, key) == nullptr ? std::string(otherwise) : config.get_string(key, otherwise);
  std::string all;
  for (std::string_view k : known) {
    if (k == said) return said;
    all.append(all.empty() ? "\"" : ", \"").append(k).append("\"");
  }
  unsupported(key, said, all);
}

[[noreturn]] void contradiction(std::string_view key, std::string_view said) {
  throw Error("InvalidConfig",
              concat("config: \"", key, "\" is ", said, ", which the checkpoint contradicts"));
}

// "body_norm", "groups" and "blocks" with the kinds of a group's layers.
void read_layers(const Value& config, const CheckpointShape& shape, const std::string& type,
                 DlgsanetConfig& c) {
  const bool normed = shape.contains("deep_feature_extraction.0.body.weight");
  c.body_norm = config.get_boolean("body_norm", normed);
  if (shape.known() && c.body_norm != normed) contradiction("body_norm", c.body_norm ? "true" : "false");
  const auto layer = [&](Index group, Index i) { return concat(c.group(group), ".body.", i); };
  const auto is_local = [&](const std::string& name) { return shape.contains(name + ".norm1.body.weight"); };
  const auto is_global = [&](const std::string& name) { return shape.contains(name + ".norm3.body.weight"); };
  std::optional<Index> groups, blocks;
  const bool pairs = type == "edge" || type == "sparseedge";
  if (shape.known()) {
    groups = 0, blocks = 0;
    while (is_local(layer(*groups, 0)) || is_global(layer(*groups, 0))) ++*groups;
    Index layers = 0;
    for (; is_local(layer(0, layers)) || is_global(layer(0, layers)); ++layers)
      if (is_local(layer(0, layers)) != (pairs ? layers % 2 == 0 : type == "idynamic"))
        contradiction("buildblock_type", concat("\"", type, "\""));
    blocks = pairs ? layers / 2 : layers;
  }
  c.groups = agreed(config, {"groups"}, groups, "its groups", 4);
  const Index n = agreed(config, {"blocks"}, blocks, "layers of its first group", 3);
  for (Index i = 0; i < n; ++i) {
    if (type != "restormer") c.local.push_back(true);
    if (type != "idynamic") c.local.push_back(false);
  }
}

DlgsanetConfig::FeedForward read_ffn(const Value& config, const CheckpointShape& shape, const char* type,
                                     const char* factor, const std::string& prefix, Index channels) {
  DlgsanetConfig::FeedForward f;
  const bool gated = shape.contains(prefix + ".project_in.weight");
  const std::string said =
      one_of(config, type, gated || !shape.known() ? "GDFN" : "BaseFFN", {"GDFN", "BaseFFN"});
  if (shape.known() && (said == "GDFN") != gated) contradiction(type, concat("\"", said, "\""));
  f.kind = said == "GDFN" ? ConvFeedForwardKind::gated : ConvFeedForwardKind::plain;
  auto rows = shape.extent(prefix + (said == "GDFN" ? ".project_in.weight" : ".body.0.weight"), 0);
  if (rows && said == "GDFN") *rows /= 2;
  f.hidden = agreed_width(config, {factor}, channels, rows, "the width of a feed-forward part", 2);
  return f;
}

void read_local(const Value& config, const CheckpointShape& shape, const std::string& layer,
                DlgsanetConfig& c) {
  DynamicLocalAttentionConfig& a = c.local_attention;
  const std::string conv = layer + ".IDynamicDWConv.conv";
  const bool dynamic = !shape.known() || shape.contains(conv + ".conv1.0.weight");
  a.dim = c.channels, a.dynamic = config.get_boolean("idynamic", dynamic);
  if (shape.known() && a.dynamic != dynamic) contradiction("idynamic", a.dynamic ? "true" : "false");
  a.kernel = agreed(config, {"window_size"},
                    shape.extent({(conv + ".conv1.1.weight").c_str(), (conv + ".weight").c_str()}, 2),
                    "the kernels of its local attention", 7);
  if (a.kernel % 2 == 0) unsupported("window_size", std::to_string(a.kernel), "an odd number");
  if (a.dynamic) {
    const auto rows = shape.extent(conv + ".conv2.0.weight", 0);
    if (rows && *rows % (a.kernel * a.kernel) != 0)
      throw Error("InvalidShape", concat("checkpoint: a generator makes ", *rows,
                                         " channels, expected a multiple of ", a.kernel * a.kernel));
    std::optional<Index> width;
    if (rows) width = std::max<Index>(1, c.channels / std::max<Index>(1, *rows / (a.kernel * a.kernel)));
    a.group_width = agreed(config, {"idynamic_num_heads"}, width, "channels that share a kernel", 6);
    if (c.channels % a.group_width != 0)
      unsupported("idynamic_num_heads", std::to_string(a.group_width), concat("a divisor of ", c.channels));
    a.reduced = shape.extent(conv + ".conv1.0.weight", 0).value_or(std::max<Index>(1, c.channels / 4));
  }
  c.local_ffn = read_ffn(config, shape, "idynamic_ffn_type", "idynamic_ffn_expansion_factor",
                         layer + ".IDynamic_ffn", c.channels);
}

// Tiles are of 96, 72 and 48 pixels for an enlargement by 2, 3 and 4, as in the authors' option files; their
// blocks with a softmax do not take "tlc_kernel", and have 48.
void read_global(const Value& config, const CheckpointShape& shape, const std::string& type,
                 const std::string& layer, DlgsanetConfig& c) {
  TransposedAttentionConfig& a = c.global_attention;
  a.dim = c.channels;
  a.heads = agreed(config, {"restormer_num_heads"}, shape.extent(layer + ".restormer_attn.temperature", 0),
                   "the temperatures of its heads", 6);
  if (c.channels % a.heads != 0)
    unsupported("restormer_num_heads", std::to_string(a.heads), concat("a divisor of ", c.channels));
  const bool sparse = type == "sparseedge";
  if (sparse) {
    const std::string f = one_of(config, "activation", "relu", {"relu", "gelu", "sigmoid"});
    a.weights = f == "relu"   ? ChannelWeights::relu
                : f == "gelu" ? ChannelWeights::gelu
                              : ChannelWeights::sigmoid;
  }
  const Index scale = c.reconstruction.scale;
  const Index usual = sparse && scale == 2 ? 96 : sparse && scale == 3 ? 72 : 48;
  if (config.get_boolean("tlc_flag", true)) a.tile = sparse ? positive(config, "tlc_kernel", usual) : usual;
  c.global_ffn = read_ffn(config, shape, "restormer_ffn_type", "restormer_ffn_expansion_factor",
                          layer + ".restormer_ffn", c.channels);
}

}  // namespace

DlgsanetConfig DlgsanetConfig::from(const Value& config, const Parameters& parameters) {
  const CheckpointShape shape(parameters);
  RestorationNames names;
  names.first = "overlap_embed.0.proj";
  DlgsanetConfig c;
  static_cast<RestorationConfig&>(c) = RestorationConfig::from(config, parameters, names);
  c.architecture = "DLGSANet";
  c.connection = ResidualConvKind::one;
  const Upsampler head = c.reconstruction.upsampler;
  if (head != Upsampler::pixelshuffledirect && head != Upsampler::pixelshuffle &&
      head != Upsampler::convolution)
    unsupported("upsampler", config.get_string("upsampler", ""),
                "\"pixelshuffledirect\", \"pixelshuffle\", \"\"");
  const std::string type =
      one_of(config, "buildblock_type", "sparseedge", {"sparseedge", "edge", "idynamic", "restormer"});
  read_layers(config, shape, type, c);
  const std::string first = c.group(0) + ".body.0", second = c.group(0) + ".body.1";
  if (type != "restormer") read_local(config, shape, first, c);
  if (type != "idynamic") read_global(config, shape, type, type == "restormer" ? first : second, c);
  return c;
}

namespace {

constexpr std::string_view kAlways[] = {
    "overlap_embed.0.proj.weight",
    "deep_feature_extraction.*.body.*.norm1.body.weight|deep_feature_extraction.*.body.*.norm3.body.weight",
    "deep_feature_extraction.*.body.*.IDynamicDWConv.conv0.weight|"
    "deep_feature_extraction.*.body.*.restormer_attn.temperature",
    "deep_feature_extraction.*.body.*.IDynamic_ffn.project_in.weight|"
    "deep_feature_extraction.*.body.*.IDynamic_ffn.body.0.weight|"
    "deep_feature_extraction.*.body.*.restormer_ffn.project_in.weight|"
    "deep_feature_extraction.*.body.*.restormer_ffn.body.0.weight",
    "deep_feature_extraction.*.body.*.weight",
    "deep_feature_extraction.*.weight",
    "conv_last.weight|upsample.0.weight",
};
constexpr std::string_view kSometimes[] = {
    "overlap_embed.0.proj.bias|deep_feature_extraction.*.bias|deep_feature_extraction.*.body.*.bias",
    "deep_feature_extraction.*.body.weight|deep_feature_extraction.*.body.bias",
    "deep_feature_extraction.*.body.*.norm2.body.weight|deep_feature_extraction.*.body.*.norm4.body.weight",
    "deep_feature_extraction.*.body.*.*.body.bias",
    "deep_feature_extraction.*.body.*.IDynamicDWConv.**",
    "deep_feature_extraction.*.body.*.IDynamic_ffn.**",
    "deep_feature_extraction.*.body.*.restormer_attn.**",
    "deep_feature_extraction.*.body.*.restormer_ffn.**",
    "conv_before_upsample.0.weight|conv_before_upsample.0.bias",
    "upsample.*.weight|upsample.*.bias|conv_last.bias",
};

std::unique_ptr<RestorationModel<CpuExec>> load(const Value& config, const Parameters& parameters,
                                                CpuExec& exec) {
  return load_dlgsanet(config, parameters, exec);
}

}  // namespace

extern const Model model_dlgsanet;
const Model model_dlgsanet{
    .type = "dlgsanet", .architecture = "DLGSANet", .restoration = load, .keys = {kAlways, kSometimes}};

}  // namespace v0
}  // namespace ashlar
