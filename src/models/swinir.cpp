// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/swinir.hpp"

#include "src/models/common/model.hpp"
#include "src/models/common/swin_config.hpp"

namespace ashlar {
inline namespace v0 {

template class SwinirGroup<CpuExec>;

SwinirConfig SwinirConfig::from(const Value& config, const Parameters& parameters) {
  const SwinTensors tensors{"layers", "residual_group.blocks", "attn.relative_position_bias_table", 1,
                            "mlp.fc1.weight"};
  const CheckpointShape shape(parameters);
  SwinirConfig c{RestorationConfig::from(config, parameters)};
  c.architecture = "SwinIR";
  c.reconstruction.adds_input = true;
  const auto rows = shape.extent("layers.0.residual_group.blocks.0.attn.relative_position_bias_table", 0);
  read_swin_layers(config, shape, tensors, window_of_table(rows), {}, c);
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
    "layers.*.residual_group.blocks.*.norm2.weight",
    "layers.*.residual_group.blocks.*.mlp.fc1.weight",
    "layers.*.residual_group.blocks.*.mlp.fc2.weight",
    "layers.*.conv.weight|layers.*.conv.0.weight",
    "norm.weight",
    "conv_after_body.weight|conv_after_body.0.weight",
    "conv_last.weight|upsample.0.weight",
};
constexpr std::string_view kSometimes[] = {
    "conv_first.bias",
    "patch_embed.norm.bias",
    "layers.*.residual_group.blocks.*.*.bias",
    "layers.*.residual_group.blocks.*.*.*.bias",
    "layers.*.residual_group.blocks.*.attn.relative_position_index",
    "layers.*.residual_group.blocks.*.attn_mask",
    "layers.*.conv.bias|layers.*.conv.*.weight|layers.*.conv.*.bias",
    "norm.bias",
    "conv_after_body.bias|conv_after_body.*.weight|conv_after_body.*.bias",
    "conv_before_upsample.0.weight|conv_before_upsample.0.bias",
    "upsample.*.weight|upsample.*.bias",
    "conv_up1.*|conv_up2.*|conv_hr.*|conv_last.bias",
};

std::unique_ptr<RestorationModel<CpuExec>> load(const Value& config, const Parameters& parameters,
                                                CpuExec& exec) {
  return load_swinir(config, parameters, exec);
}

}  // namespace

extern const Model model_swinir;
const Model model_swinir{
    .type = "swinir", .architecture = "SwinIR", .restoration = load, .keys = {kAlways, kSometimes}};

}  // namespace v0
}  // namespace ashlar
