// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/swin2sr.hpp"

#include <cmath>

#include "ashlar/models/hf_config.hpp"
#include "src/models/common/model.hpp"
#include "src/models/common/swin_config.hpp"

namespace ashlar {
inline namespace v0 {

template class Swin2srGroup<CpuExec>;

namespace {

// The checkpoint has the window in buffers alone, which Hugging Face's lacks.
std::optional<Index> seen_window(const CheckpointShape& shape, const std::string& attention) {
  if (const auto side = shape.extent(attention + "relative_coords_table", 1)) return (*side + 1) / 2;
  const auto tokens = shape.extent(attention + "relative_position_index", 0);
  return tokens ? std::optional<Index>(std::llround(std::sqrt(static_cast<double>(*tokens)))) : std::nullopt;
}

}  // namespace

RestorationNames Swin2srConfig::names() const {
  if (!hugging_face) return {.embed = "patch_embed.proj"};
  return {.first = "swin2sr.first_convolution",
          .embed = "swin2sr.embeddings.patch_embeddings.projection",
          .embed_norm = "swin2sr.embeddings.patch_embeddings.layernorm",
          .norm = "swin2sr.layernorm",
          .after_body = "swin2sr.conv_after_body",
          .groups = "swin2sr.encoder.stages"};
}

Swin2srConfig Swin2srConfig::from(const Value& config, const Parameters& parameters) {
  const CheckpointShape shape(parameters);
  Swin2srConfig c;
  c.hugging_face = shape.contains("swin2sr.first_convolution.weight") ||
                   (!shape.known() && config.get_string("model_type", "") == "swin2sr");
  static_cast<RestorationConfig&>(c) = RestorationConfig::from(config, parameters, c.names());
  c.architecture = "Swin2SR";
  c.reconstruction.adds_input = true, c.adds_image = c.hugging_face;
  const SwinTensors authors{"layers", "residual_group.blocks", "attn.logit_scale", 0, "mlp.fc1.weight"},
      theirs{"swin2sr.encoder.stages", "layers", "attention.self.logit_scale", 0,
             "intermediate.dense.weight"};
  const SwinTensors& tensors = c.hugging_face ? theirs : authors;
  const std::string first = concat(tensors.groups, ".0.", tensors.blocks, ".0.");
  read_swin_layers(config, shape, tensors,
                   seen_window(shape, first + (c.hugging_face ? "attention.self." : "attn.")), {}, c);
  if (c.hugging_face) {
    c.shift_mask = -200;
    expect_setting(config, "layer_norm_eps", Value(1e-5));
    c.activation = activation_of(config.get_string("hidden_act", "gelu"));
  }
  return c;
}

namespace {

constexpr std::string_view kAlways[] = {
    "conv_first.weight|swin2sr.first_convolution.weight",
    "patch_embed.proj.weight|swin2sr.embeddings.patch_embeddings.projection.weight",
    "patch_embed.norm.weight|swin2sr.embeddings.patch_embeddings.layernorm.weight",
    "layers.*.residual_group.blocks.*.norm1.weight|swin2sr.encoder.stages.*.layers.*.layernorm_before.weight",
    "layers.*.residual_group.blocks.*.attn.logit_scale|"
    "swin2sr.encoder.stages.*.layers.*.attention.self.logit_scale",
    "layers.*.residual_group.blocks.*.attn.cpb_mlp.0.weight|"
    "swin2sr.encoder.stages.*.layers.*.attention.self.continuous_position_bias_mlp.0.weight",
    "layers.*.residual_group.blocks.*.attn.cpb_mlp.2.weight|"
    "swin2sr.encoder.stages.*.layers.*.attention.self.continuous_position_bias_mlp.2.weight",
    "layers.*.residual_group.blocks.*.attn.qkv.weight|"
    "swin2sr.encoder.stages.*.layers.*.attention.self.query.weight",
    "layers.*.residual_group.blocks.*.attn.proj.weight|"
    "swin2sr.encoder.stages.*.layers.*.attention.output.dense.weight",
    "layers.*.residual_group.blocks.*.norm2.weight|swin2sr.encoder.stages.*.layers.*.layernorm_after.weight",
    "layers.*.residual_group.blocks.*.mlp.fc1.weight|swin2sr.encoder.stages.*.layers.*.intermediate.dense."
    "weight",
    "layers.*.residual_group.blocks.*.mlp.fc2.weight|swin2sr.encoder.stages.*.layers.*.output.dense.weight",
    "layers.*.conv.weight|layers.*.conv.0.weight|swin2sr.encoder.stages.*.conv.weight|"
    "swin2sr.encoder.stages.*.conv.0.weight",
    "layers.*.patch_embed.proj.weight|swin2sr.encoder.stages.*.patch_embed.projection.weight",
    "norm.weight|swin2sr.layernorm.weight",
    "conv_after_body.weight|conv_after_body.0.weight|swin2sr.conv_after_body.weight|"
    "swin2sr.conv_after_body.0.weight",
    "conv_last.weight|upsample.0.weight|upsample.final_convolution.weight|upsample.conv.weight|"
    "final_convolution.weight",
};
constexpr std::string_view kSometimes[] = {
    "conv_first.bias|patch_embed.proj.bias|patch_embed.norm.bias|norm.bias",
    "layers.*.residual_group.blocks.*.*.bias|layers.*.residual_group.blocks.*.*.*.bias",
    "layers.*.residual_group.blocks.*.attn.q_bias|layers.*.residual_group.blocks.*.attn.v_bias",
    "layers.*.residual_group.blocks.*.attn.cpb_mlp.0.bias|layers.*.residual_group.blocks.*.attn_mask",
    "layers.*.residual_group.blocks.*.attn.relative_coords_table",
    "layers.*.residual_group.blocks.*.attn.relative_position_index",
    "layers.*.conv.bias|layers.*.conv.*.weight|layers.*.conv.*.bias|layers.*.patch_embed.proj.bias",
    "conv_after_body.bias|conv_after_body.*.weight|conv_after_body.*.bias",
    "conv_before_upsample.0.*|upsample.*.weight|upsample.*.bias|conv_up1.*|conv_up2.*|conv_hr.*|conv_last."
    "bias",
    "conv_bicubic.*|conv_aux.*|conv_after_aux.0.*",
    "swin2sr.first_convolution.bias|swin2sr.embeddings.patch_embeddings.*.bias|swin2sr.layernorm.bias",
    "swin2sr.encoder.stages.*.layers.*.*.bias|swin2sr.encoder.stages.*.layers.*.*.dense.bias",
    "swin2sr.encoder.stages.*.layers.*.attention.**",
    "swin2sr.encoder.stages.*.conv.**|swin2sr.encoder.stages.*.patch_embed.projection.bias",
    "swin2sr.conv_after_body.**|final_convolution.bias|upsample.conv_after_aux.0.*|upsample.upsample.*.*",
};

std::unique_ptr<RestorationModel<CpuExec>> load(const Value& config, const Parameters& parameters,
                                                CpuExec& exec) {
  return load_swin2sr(config, parameters, exec);
}

}  // namespace

extern const Model model_swin2sr;
const Model model_swin2sr{
    .type = "swin2sr", .architecture = "Swin2SR", .restoration = load, .keys = {kAlways, kSometimes}};

}  // namespace v0
}  // namespace ashlar
