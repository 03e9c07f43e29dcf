// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/rwkv7.hpp"

#include <cmath>

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

bool has(const Value& config, std::string_view key) {
  const Value* v = config.find(key);
  return v != nullptr && !v->is_null();
}

// "head_dim", which stands above "num_heads", or the hidden size over the latter where the former is null.
Index head_width(const Value& config, Index hidden) {
  const bool counted = has(config, "num_heads") && !has(config, "head_dim");
  const Index given = counted ? positive(config, "num_heads") : positive(config, "head_dim", 64);
  if (given > hidden || hidden % given != 0)
    throw Error("InvalidConfig", concat("config: \"hidden_size\" is ", hidden, ", expected a multiple of ",
                                        counted ? "\"num_heads\"" : "\"head_dim\"", ", ", given));
  return counted ? hidden / given : given;
}

// One "value_dim", a number or a list for the layers: the values of the first are mixed with the others'.
Index value_width(const Value& config, Index hidden) {
  const Value* v = config.find("value_dim");
  if (v == nullptr || v->is_null()) return hidden;
  const Value::Array one{*v}, &list = v->array() != nullptr ? *v->array() : one;
  if (list.empty()) throw Error("InvalidConfig", "config: \"value_dim\" is an empty list");
  for (const Value& width : list) {
    const std::int64_t* n = width.integer();
    if (n == nullptr || *n < hidden || *n % hidden != 0 || *n > (Index{1} << 31))
      throw Error("InvalidConfig", concat("config: \"value_dim\" is not a multiple of \"hidden_size\", ",
                                          hidden, ", or a list of them"));
    if (*n != *list[0].integer())
      throw Error("InvalidConfig",
                  concat("config: \"value_dim\" is ", static_cast<Index>(*list[0].integer()), " and ",
                         static_cast<Index>(*n), ", expected the same for all layers"));
  }
  return static_cast<Index>(*list[0].integer());
}

// A rank of the config, or what the layer chooses without one: factor times the root of the hidden size,
// rounded to a multiple of 32 (half to even).
Index rank(const Value& config, const char* key, double factor, Index hidden) {
  const double chosen = std::nearbyint(factor * std::sqrt(static_cast<double>(hidden)) / 32) * 32;
  return positive(config, key, std::max<Index>(32, static_cast<Index>(chosen)));
}

}  // namespace

Rwkv7Config rwkv7_layer(const Value& config) {
  Rwkv7Config m;
  m.hidden = positive(config, "hidden_size");
  m.head_dim = head_width(config, m.hidden);
  m.heads = m.hidden / m.head_dim;
  m.value_dim = value_width(config, m.hidden) / m.heads;
  const double wider = static_cast<double>(m.head_dim) / 64;
  m.decay_rank = rank(config, "decay_low_rank_dim", 2.5 * wider, m.hidden);
  m.gate_rank = rank(config, "gate_low_rank_dim", 5, m.hidden);
  m.rate_rank = rank(config, "a_low_rank_dim", 2.5 * wider, m.hidden);
  m.value_rank = rank(config, "v_low_rank_dim", 1.7 * wider, m.hidden);
  m.first = config.get_integer("layer_idx", 1) == 0;
  m.norm_eps = static_cast<float>(config.get_number("norm_eps", 1e-5));
  // Unfused, the keys' norm is max(|k|, 1e-12).
  m.key_eps = config.get_boolean("fuse_norm", false) ? 1e-6f : 1e-24f;
  return m;
}

Rwkv7LmConfig Rwkv7LmConfig::from(const Value& config) {
  Rwkv7LmConfig c{RwkvConfig::from(config, 4), rwkv7_layer(config)};
  if (c.attention.has(0))  // whose values would be the first ones?
    unsupported("attn", "attention in layer 0", "attention behind the first layer");
  if (const Value* v = config.find("value_dim"); v != nullptr && v->array() != nullptr)
    if (static_cast<Index>(v->array()->size()) != c.layers)
      throw Error("InvalidConfig", concat("config: \"value_dim\" has ", v->array()->size(),
                                          " entries, expected one for each of ", c.layers, " layers"));
  // The model has defaults of its own for what is absent; what is null is the layer's to choose.
  auto absent = [&](const char* key) { return config.find(key) == nullptr; };
  if (absent("decay_low_rank_dim")) c.mixer.decay_rank = 64;
  if (absent("gate_low_rank_dim")) c.mixer.gate_rank = 128;
  if (absent("a_low_rank_dim")) c.mixer.rate_rank = 64;
  if (absent("v_low_rank_dim")) c.mixer.value_rank = 16;
  if (absent("fuse_norm")) c.mixer.key_eps = 1e-6f;
  return c;
}

extern const Model model_rwkv7;
const Model model_rwkv7{"rwkv7", load_rwkv7<CpuExec>};

}  // namespace v0
}  // namespace ashlar
