// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/olmo_hybrid.hpp"

#include <algorithm>

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

GatedDeltaNetConfig linear_config(const Value& config, const DecoderConfig& c) {
  GatedDeltaNetConfig g;
  g.hidden = c.hidden_size;
  g.key_heads = positive(config, "linear_num_key_heads", c.heads);
  g.value_heads = positive(config, "linear_num_value_heads", c.heads);
  g.key_dim =
      positive(config, "linear_key_head_dim", std::max<Index>(1, c.hidden_size * 3 / (4 * g.key_heads)));
  g.value_dim = positive(config, "linear_value_head_dim", 2 * g.key_dim);
  g.conv_width = positive(config, "linear_conv_kernel_dim", 4);
  g.negative_eigenvalues = config.get_boolean("linear_allow_neg_eigval", true);
  if (g.value_heads % g.key_heads != 0)
    throw Error("InvalidConfig", concat("config: \"linear_num_value_heads\" is ", g.value_heads,
                                        ", expected a multiple of \"linear_num_key_heads\", ", g.key_heads));
  return g;
}

}  // namespace

template class OlmoHybridBlock<CpuExec>;

OlmoHybridConfig OlmoHybridConfig::from(const Value& config) {
  OlmoHybridConfig c{DecoderConfig::from(config, 65536)};
  if (const Value* types = config.find("layer_types"); types != nullptr && !types->is_null()) {
    c.layer_types = ashlar::layer_types(config, c.layers, {"linear_attention", "full_attention"}, "");
  } else {  // every fourth layer is attention, or the last one where there are fewer
    for (Index i = 0; i < c.layers; ++i)
      c.layer_types.push_back(i % 4 == 3 || (c.layers < 4 && i == c.layers - 1) ? "full_attention"
                                                                                : "linear_attention");
  }
  c.linear = linear_config(config, c);
  const Value* rope = config.find("rope_parameters");
  if (rope == nullptr || !rope->is_null()) c.rope = rope_of(config, "full_attention", c, std::nullopt);
  return c;
}

NormPlace norm_place(const ParameterLookup& layer) {
  const bool before = layer.contains({"input_layernorm.weight", "attention_layer_norm.weight"});
  const bool behind = layer.contains("post_feedforward_layernorm.weight");
  if (before == behind)
    throw Error("InvalidCheckpoint",
                concat("checkpoint: \"", layer.full(""), "\" has ", before ? "both" : "neither",
                       " input_layernorm and post_feedforward_layernorm, expected one of them"));
  return before ? NormPlace::before : NormPlace::behind;
}

Tensor<float, 1> read_joined_conv(const ParameterLookup& r, Index channels, Index width) {
  if (r.contains("conv1d.weight")) return to_floats(r.tensor("conv1d.weight", {channels, 1, width}));
  std::array<Parameter, 3> parts;
  Index rows = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    const char* const names[] = {"q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight"};
    const Parameter& p = parts[i] = r.tensor(names[i]);
    if (p.shape.size() != 3 || p.shape[1] != 1 || p.shape[2] != width)
      throw Error("InvalidShape", concat("checkpoint: tensor \"", r.full(names[i]),
                                         "\" is not of shape [channels, 1, ", width, "]"));
    rows += p.shape[0];
  }
  if (rows != channels)
    throw Error("InvalidShape", concat("checkpoint: \"", r.full("{q,k,v}_conv1d.weight"), "\" have ", rows,
                                       " channels, expected ", channels));
  Tensor<float, 1> joined({channels * width});
  float* to = joined.data();
  for (const Parameter& p : parts) {
    const Tensor<float, 1> part = to_floats(p);
    to = std::copy(part.data(), part.data() + part.size(), to);
  }
  return joined;
}

extern const Model model_olmo_hybrid;
const Model model_olmo_hybrid{"olmo_hybrid", load_olmo_hybrid<CpuExec>};

}  // namespace v0
}  // namespace ashlar
