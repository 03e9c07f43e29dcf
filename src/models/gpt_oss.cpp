// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gpt_oss.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr double kTheta = 150000;

RopeFrequencies rope_of_layer(const Value& config, std::string_view layer_type, const DecoderConfig& c) {
  if (given(config, "rope_parameters") || given(config, "rope_scaling"))
    return *rope_of(config, layer_type, c, kTheta);
  YarnScaling released{32, 4096};
  released.truncate = false;
  return rope_frequencies(c.head_dim, positive_number(config, "rope_theta", kTheta), released);
}

MoeConfig moe_of(const Value& config, const DecoderConfig& c) {
  MoeConfig m{c.hidden_size, c.intermediate_size,
              positive(config, "num_local_experts", positive(config, "num_experts", 128)),
              positive(config, "num_experts_per_tok", positive(config, "experts_per_token", 4))};
  m.fused = FusedExperts::interleaved_columns;
  m.biased = true;
  m.slope = static_cast<float>(positive_number(config, "swiglu_alpha", 1.702));
  m.limit = static_cast<float>(positive_number(config, "swiglu_limit", 7));
  m.up_offset = 1;
  if (m.chosen > m.experts)
    throw Error("InvalidConfig", concat("config: \"num_experts_per_tok\" is ", m.chosen,
                                        ", expected at most \"num_local_experts\", ", m.experts));
  return m;
}

}  // namespace

template class GptOssBlock<CpuExec>;

GptOssConfig GptOssConfig::from(const Value& config) {
  GptOssConfig c{DecoderConfig::from(config, 131072, 2880, 64)};
  c.norm_eps = static_cast<float>(config.get_number("rms_norm_eps", 1e-5));
  c.attention_bias = config.get_boolean("attention_bias", true);
  c.layer_types = window_layer_types(config, c.layers, 2);
  c.window = positive(config, "sliding_window", 128);
  c.sliding_rope = rope_of_layer(config, "sliding_attention", c);
  c.full_rope = rope_of_layer(config, "full_attention", c);
  c.moe = moe_of(config, c);
  if (c.activation != Activation::silu)
    unsupported("hidden_act", config.get_string("hidden_act", ""), "silu");
  return c;
}

extern const Model model_gpt_oss;
const Model model_gpt_oss{"gpt_oss", load_gpt_oss<CpuExec>};

}  // namespace v0
}  // namespace ashlar
