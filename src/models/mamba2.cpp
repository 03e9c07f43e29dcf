// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/mamba2.hpp"

#include "ashlar/models/fla_config.hpp"
#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

bool has(const Value& config, std::string_view key) {
  const Value* v = config.find(key);
  return v != nullptr && !v->is_null();
}

// By the names that the two writers do not share.
Mamba2Writer writer_of(const Value& config) {
  const bool fla = has(config, "norm_eps") || has(config, "dt_limit");
  const bool transformers = has(config, "layer_norm_epsilon") || has(config, "time_step_limit");
  if (fla && transformers)
    throw Error(
        "InvalidConfig",
        "config: it has both \"layer_norm_epsilon\" or \"time_step_limit\", as transformers writes, and "
        "\"norm_eps\" or \"dt_limit\", as flash-linear-attention does, expected one of them");
  return fla ? Mamba2Writer::fla : Mamba2Writer::transformers;
}

// expand * hidden_size in heads of head_dim.
Index heads_of(const Value& config, Index hidden, Index head_dim) {
  const double expand = config.get_number("expand", 2), wide = expand * static_cast<double>(hidden);
  const Index inner = wide >= 1 && wide < 0x1p31 ? static_cast<Index>(wide) : 0;
  if (inner == 0 || inner % head_dim != 0)
    throw Error("InvalidConfig",
                concat("config: \"expand\" is ", expand, " and \"hidden_size\" ", hidden,
                       ", expected a product that is a multiple of \"head_dim\", ", head_dim));
  const Index heads = positive(config, "num_heads", inner / head_dim);
  if (heads * head_dim != inner)
    throw Error("InvalidConfig", concat("config: \"num_heads\" is ", heads, ", expected ", inner / head_dim,
                                        ", that is \"expand\" times \"hidden_size\" over \"head_dim\""));
  return heads;
}

}  // namespace

template class Mamba2Block<CpuExec>;

StepLimits step_limits(const Value& config, std::string_view key) {
  StepLimits limits;
  if (!has(config, key)) return limits;
  const Value::Array* pair = config.find(key)->array();
  if (pair == nullptr || pair->size() != 2)
    throw Error("InvalidConfig", concat("config: \"", key, "\" is not a list of two numbers"));
  const std::optional<double> low = (*pair)[0].number(), high = (*pair)[1].number();
  if (!low || !high)
    throw Error("InvalidConfig", concat("config: \"", key, "\" is not a list of two numbers"));
  limits.low = static_cast<float>(*low), limits.high = static_cast<float>(*high);
  if (!(limits.low >= 0) || !(limits.high >= limits.low))
    throw Error("InvalidConfig", concat("config: \"", key, "\" is ", limits.low, " to ", limits.high,
                                        ", expected 0 <= low <= high"));
  return limits;
}

Mamba2Config mamba2_layer(const Value& config, Mamba2Writer writer) {
  const bool fla = writer == Mamba2Writer::fla;
  Mamba2Config m;
  m.hidden = positive(config, "hidden_size");
  m.head_dim = positive(config, "head_dim", 64);
  m.heads = m.x_heads = heads_of(config, m.hidden, m.head_dim);
  m.state_dim = positive(config, "state_size", 128);
  m.b_groups = m.c_groups = positive(config, "n_groups", fla ? 1 : 8);
  if (m.heads % m.b_groups != 0)
    throw Error("InvalidConfig", concat("config: \"n_groups\" is ", m.b_groups, ", expected a divisor of ",
                                        m.heads, " heads"));
  m.conv_width = positive(config, "conv_kernel", 4);
  m.biased = config.get_boolean("use_bias", false);
  m.conv_bias = config.get_boolean("use_conv_bias", true);
  const std::string function = config.get_string("hidden_act", "silu");
  m.activation = fla ? fla_activation(function) : activation_of(function);
  m.norm_eps = static_cast<float>(config.get_number(fla ? "norm_eps" : "layer_norm_epsilon", 1e-5));
  const StepLimits limits = step_limits(config, fla ? "dt_limit" : "time_step_limit");
  m.min_step = limits.low, m.max_step = limits.high;
  if (!fla) return m;
  m.norm_groups = m.b_groups;
  m.normalised = config.get_boolean("rmsnorm", true);
  m.norm_before_gate = config.get_boolean("norm_before_gate", false);
  m.skip_per_channel = config.get_boolean("D_has_hdim", false);
  if (!m.normalised && m.activation != Activation::silu)  // its two paths gate differently then
    unsupported("hidden_act", function, "silu where \"rmsnorm\" is false");
  return m;
}

Mamba2LmConfig Mamba2LmConfig::from(const Value& config) {
  if (has(config, "attn")) unsupported("attn", "attention layers", "null");
  if (const Value* q = config.find("quantization_config"); q != nullptr && !q->is_null())
    unsupported("quantization_config", q->get_string("quant_method", "quantized"),
                "none, f32, f16 or bf16 weights");
  Mamba2LmConfig c;
  c.mixer = mamba2_layer(config, writer_of(config));
  c.vocab_size = positive(config, "vocab_size");
  c.hidden_size = c.mixer.hidden;
  c.layers = positive(config, "num_hidden_layers");
  c.max_positions = kNoPositionLimit;
  c.norm_eps = c.mixer.norm_eps;
  c.tied = config.get_boolean("tie_word_embeddings", false);
  return c;
}

extern const Model model_mamba2;
const Model model_mamba2{"mamba2", load_mamba2<CpuExec>};

}  // namespace v0
}  // namespace ashlar
