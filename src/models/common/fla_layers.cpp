// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/fla_layers.hpp"

#include <cmath>

namespace ashlar {
inline namespace v0 {
namespace {

template <class... Parts>
[[noreturn]] void invalid(const Parts&... parts) {
  throw Error("InvalidConfig", concat("config: ", parts...));
}

Index hidden_size(const Value& config, FlaScope scope) {
  return positive(config, "hidden_size", scope == FlaScope::model ? 2048 : 1024);
}
float norm_eps(const Value& config, FlaScope scope) {
  const double usual = scope == FlaScope::model ? 1e-6 : 1e-5;
  return static_cast<float>(config.get_number("norm_eps", config.get_number("rms_norm_eps", usual)));
}
ConvConfig conv(const Value& config, bool usual) {
  if (!config.get_boolean("use_short_conv", usual)) return {};
  return {positive(config, "conv_size", 4), config.get_boolean("conv_bias", false)};
}
Index fewer_heads(const Value& config, Index heads) {
  const Index kv = positive(config, "num_kv_heads", heads);
  if (heads % kv != 0) invalid("\"num_heads\" is ", heads, ", expected a multiple of \"num_kv_heads\", ", kv);
  return kv;
}

// The heads of the delta rules: "head_dim" and "num_heads" of keys, "num_v_heads" of values "expand_v" as
// wide.
template <class Config>
void read_delta_heads(const Value& config, Config& c, Index heads, Index head_dim, double expand) {
  c.key_heads = positive(config, "num_heads", heads);
  c.value_heads = positive(config, "num_v_heads", c.key_heads);
  c.key_dim = positive(config, "head_dim", head_dim);
  if (c.value_heads % c.key_heads != 0)
    invalid("\"num_v_heads\" is ", c.value_heads, ", expected a multiple of \"num_heads\", ", c.key_heads);
  const double factor = config.get_number("expand_v", expand), wide = factor * static_cast<double>(c.key_dim);
  c.value_dim = wide >= 1 && wide < 0x1p31 ? static_cast<Index>(wide) : 0;
  if (c.value_dim == 0 || std::abs(wide - static_cast<double>(c.value_dim)) > 1e-5 * wide)
    invalid("\"expand_v\" is ", factor, " and \"head_dim\" ", c.key_dim, ", expected a whole product");
}

void read_decayed(const Value& config, FlaScope scope, DecayedAttentionConfig& c, Index heads,
                  double expand_k, double expand_v, bool convolved) {
  c.hidden = hidden_size(config, scope);
  c.heads = positive(config, "num_heads", heads);
  c.kv_heads = fewer_heads(config, c.heads);
  c.key_dim = fla_head_width(config, "expand_k", expand_k, c.hidden, c.heads);
  c.value_dim = fla_head_width(config, "expand_v", expand_v, c.hidden, c.heads);
  c.conv = conv(config, convolved);
  if (given(config, "feature_map"))
    c.feature_map = fla_activation(config.get_string("feature_map", ""), "feature_map");
  c.output_gate = config.get_boolean("use_output_gate", true);
  c.norm_weight = config.get_boolean("elementwise_affine", true);
  // A model calls its layers with its own activation.
  const char* key = scope == FlaScope::model ? "hidden_act" : "gate_fn";
  c.gate_activation = fla_activation(config.get_string(key, "swish"), key);
  c.norm_eps = norm_eps(config, scope);
}

float temperature(const Value& config) {
  const double t = config.get_number("gate_logit_normalizer", 16);
  if (!(t > 0)) invalid("\"gate_logit_normalizer\" is ", t, ", expected more than 0");
  return static_cast<float>(t);
}

FeatureMapKind feature_map_kind(const std::string& name) {
  if (name == "identity") return FeatureMapKind::identity;
  if (name == "elu") return FeatureMapKind::elu1;
  if (name == "relu") return FeatureMapKind::relu;
  if (name == "elementwise_product") return FeatureMapKind::elementwise_product;
  if (name == "t2r") return FeatureMapKind::t2r;
  if (name == "hedgehog") return FeatureMapKind::hedgehog;
  if (name == "dpfp") return FeatureMapKind::dpfp;
  unsupported("feature_map", name, "identity, elu, relu, elementwise_product, t2r, hedgehog, dpfp");
}

}  // namespace

// "use_output_norm" is nowhere read by its authors: the norm is always there.
DeltaNetConfig delta_net_layer(const Value& config, FlaScope scope) {
  DeltaNetConfig c;
  c.hidden = hidden_size(config, scope);
  c.heads = positive(config, "num_heads", scope == FlaScope::model ? 16 : 4);
  c.key_dim = fla_head_width(config, "expand_k", 1, c.hidden, c.heads);
  c.value_dim = fla_head_width(config, "expand_v", 1, c.hidden, c.heads);
  c.conv = conv(config, true);
  const std::string activation = config.get_string("qk_activation", "silu");
  if (activation == "silu")
    c.qk_activation = Activation::silu;
  else if (activation == "relu")
    c.qk_activation = Activation::relu;
  else if (activation == "elu")
    c.qk_activation = Activation::elu1;
  else if (activation == "identity")
    c.qk_activation = Activation::identity;
  else
    unsupported("qk_activation", activation, "silu, relu, elu, identity");
  const std::string norm = config.get_string("qk_norm", "l2");
  if (norm != "l2" && norm != "sum") unsupported("qk_norm", norm, "l2, sum");
  c.sum_norm = norm == "sum";
  c.beta = config.get_boolean("use_beta", true);
  c.negative_eigenvalues = config.get_boolean("allow_neg_eigval", false);
  c.output_gate = config.get_boolean("use_gate", false);
  c.norm_eps = norm_eps(config, scope);
  return c;
}

GatedDeltaNetConfig gated_delta_net_layer(const Value& config, FlaScope scope) {
  GatedDeltaNetConfig c;
  c.hidden = positive(config, "hidden_size", 2048);
  read_delta_heads(config, c, 6, 256, 2);
  const ConvConfig convolution = conv(config, true);
  c.conv_width = convolution.width, c.conv_biased = convolution.biased;
  c.negative_eigenvalues = config.get_boolean("allow_neg_eigval", false);
  c.output_gate = config.get_boolean("use_gate", true);
  c.norm_eps = norm_eps(config, scope);
  return c;
}

GatedDeltaProductConfig gated_delta_product_layer(const Value& config, FlaScope scope) {
  const bool alone = scope == FlaScope::layer;
  GatedDeltaProductConfig c;
  c.hidden = positive(config, "hidden_size", 2048);
  read_delta_heads(config, c, 6, 256, 2);
  c.substeps = positive(config, "num_householder", alone ? 2 : 1);
  c.conv = conv(config, true);
  c.forget_gate = config.get_boolean("use_forget_gate", alone);
  c.output_gate = config.get_boolean("use_output_gate", true);
  c.negative_eigenvalues = config.get_boolean("allow_neg_eigval", alone);
  c.norm_eps = norm_eps(config, scope);
  return c;
}

KimiDeltaAttentionConfig kda_layer(const Value& config, FlaScope scope) {
  KimiDeltaAttentionConfig c;
  c.hidden = positive(config, "hidden_size", 2048);
  read_delta_heads(config, c, 16, 128, 1);
  c.conv = conv(config, true);
  c.decay_rank = c.gate_rank = c.value_dim;
  c.negative_eigenvalues = config.get_boolean("allow_neg_eigval", false);
  // "safe_gate" only promises the kernel what "lower_bound" does.
  if (given(config, "lower_bound")) {
    const double bound = config.get_number("lower_bound");
    if (!(bound < 0) || !std::isfinite(bound))
      invalid("\"lower_bound\" is ", bound, ", expected a negative number");
    c.bound = static_cast<float>(bound);
  } else if (config.get_boolean("safe_gate", false)) {
    invalid("\"safe_gate\" is set without a \"lower_bound\"");
  }
  c.norm_eps = norm_eps(config, scope);
  return c;
}

GatedLinearAttentionConfig gla_layer(const Value& config, FlaScope scope) {
  GatedLinearAttentionConfig c;
  read_decayed(config, scope, c, 4, 0.5, 1, false);
  if (!config.get_boolean("use_gk", true)) unsupported("use_gk", "false", "true");
  if (config.get_boolean("use_gv", false)) unsupported("use_gv", "true", "false");
  c.decay_rank = positive(config, "gate_low_rank_dim", 16);
  c.temperature = temperature(config);
  if (given(config, "clamp_min")) {
    c.floor = static_cast<float>(config.get_number("clamp_min"));
    if (!(c.floor <= 0)) invalid("\"clamp_min\" is ", c.floor, ", expected up to 0");
  }
  return c;
}

SimpleGatedLinearAttentionConfig simple_gla_layer(const Value& config, FlaScope scope) {
  SimpleGatedLinearAttentionConfig c;
  read_decayed(config, scope, c, 4, 1, 1, true);
  c.temperature = temperature(config);
  return c;
}

RetentionConfig retention_layer(const Value& config, FlaScope scope) {
  RetentionConfig c;
  read_decayed(config, scope, c, 8, 1, 2, false);
  if (c.key_dim % 2 != 0)
    invalid("\"num_heads\" makes heads of ", c.key_dim, ", expected an even number for their rotation");
  return c;
}

LinearAttentionConfig linear_attn_layer(const Value& config, FlaScope scope) {
  LinearAttentionConfig c;
  c.hidden = hidden_size(config, scope);
  c.heads = positive(config, "num_heads", 8);
  c.kv_heads = fewer_heads(config, c.heads);
  c.key_dim = fla_head_width(config, "expand_k", 1, c.hidden, c.heads);
  c.value_dim = fla_head_width(config, "expand_v", 1, c.hidden, c.heads);
  c.feature_map = feature_map_kind(config.get_string("feature_map", "elementwise_product"));
  c.tied_feature_maps = config.get_boolean("tie_feature_map_qk", false);
  c.norm_q = config.get_boolean("norm_q", false);
  c.norm_k = config.get_boolean("norm_k", false);
  c.normalize = config.get_boolean("do_feature_map_norm", false);
  const std::string norm = config.get_string("output_norm", "rmsnorm");
  if (norm != "rmsnorm" && norm != "identity") unsupported("output_norm", norm, "rmsnorm, identity");
  c.output_norm = norm == "rmsnorm";
  c.norm_weight = config.get_boolean("elementwise_affine", true);
  c.norm_eps = norm_eps(config, scope);
  return c;
}

HgrnConfig hgrn_layer(const Value& config, FlaScope scope) {
  HgrnConfig c;
  c.hidden = hidden_size(config, scope);
  c.width = fla_head_width(config, "expand_ratio", 1, c.hidden, 1);
  c.conv = conv(config, false);
  c.norm_weight = config.get_boolean("elementwise_affine", true);
  c.norm_eps = norm_eps(config, scope);
  return c;
}

Hgrn2Config hgrn2_layer(const Value& config, FlaScope scope) {
  Hgrn2Config c;
  c.hidden = hidden_size(config, scope);
  const Value* ratio = config.find("expand_ratio");
  // The ratio decides about the heads, unless it is null.
  c.key_dim = ratio != nullptr && ratio->is_null() ? c.hidden / positive(config, "num_heads")
                                                   : positive(config, "expand_ratio", 128);
  c.heads = c.key_dim == 0 ? 0 : c.hidden / c.key_dim;
  if (c.heads == 0 || c.hidden % c.heads != 0)
    invalid("\"expand_ratio\" is ", c.key_dim, " and \"hidden_size\" ", c.hidden,
            ", expected heads that divide it");
  c.value_dim = c.hidden / c.heads;
  c.conv = conv(config, false);
  c.norm_weight = config.get_boolean("elementwise_affine", true);
  return c;
}

}  // namespace v0
}  // namespace ashlar
