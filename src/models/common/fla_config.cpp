// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/fla_config.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

template <class... Parts>
[[noreturn]] void invalid(const Parts&... parts) {
  throw Error("InvalidConfig", concat("config: \"attn\" ", parts...));
}

}  // namespace

Activation fla_activation(const std::string& name) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "sqrelu") return Activation::relu2;
  if (name == "relu") return Activation::relu;
  if (name == "sigmoid") return Activation::sigmoid;
  if (name == "gelu") return Activation::gelu_tanh;
  unsupported("hidden_act", name, "silu, swish, sqrelu, relu, sigmoid, gelu");
}

HybridAttention HybridAttention::from(const Value& config, Index hidden, Index layers) {
  HybridAttention hybrid;
  const Value* attn = config.find("attn");
  if (attn == nullptr || attn->is_null()) return hybrid;
  const Value::Array one{*attn}, &specs = attn->array() != nullptr ? *attn->array() : one;
  for (const Value& spec : specs) {
    if (spec.object() == nullptr) invalid("is not an object, a list of them, or null");
    Layer mine;
    AttentionConfig& a = mine.attention;
    a.hidden = hidden;
    a.heads = positive(spec, "num_heads");
    a.kv_heads = positive(spec, "num_kv_heads", a.heads);
    if (hidden % a.heads != 0 || a.heads % a.kv_heads != 0)
      invalid("has ", a.heads, " heads and ", a.kv_heads, " key-value heads, expected divisors of ", hidden,
              " and ", a.heads);
    a.head_dim = hidden / a.heads;
    a.biased = spec.get_boolean("qkv_bias", false);
    a.output_biased = false;
    a.qk_norm = spec.get_boolean("qk_norm", false) ? QkNorm::head : QkNorm::none;
    a.norm_eps = 1e-5f;
    const Value* window = spec.find("window_size");
    a.window = window != nullptr && !window->is_null() ? positive(spec, "window_size") : 0;
    const double theta = spec.get_number("rope_theta", 10000);
    if (!(theta > 0) || theta > 1e300) invalid("has \"rope_theta\" ", theta, ", expected a positive number");
    if (a.head_dim % 2 != 0)
      invalid("has heads of ", a.head_dim, ", expected an even number for their rotation");
    mine.rope = rope_frequencies(a.head_dim, theta);
    const Value* list = spec.find("layers");
    if (list == nullptr || list->array() == nullptr) invalid("has no list \"layers\"");
    for (const Value& entry : *list->array()) {
      const std::int64_t* layer = entry.integer();
      if (layer == nullptr || *layer < 0 || *layer >= layers)
        invalid("names a layer that is not an integer from 0 to ", layers - 1);
      if (!hybrid.layers_.emplace(static_cast<Index>(*layer), mine).second)
        invalid("names layer ", static_cast<Index>(*layer), " twice");
    }
  }
  return hybrid;
}

}  // namespace v0
}  // namespace ashlar
