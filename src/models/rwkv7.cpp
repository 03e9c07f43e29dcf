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

// One "value_dim" for all layers: the values of the first are mixed with the others'.
Index value_width(const Value& config, Index hidden, Index layers) {
  const Value* v = config.find("value_dim");
  if (v == nullptr || v->is_null()) return hidden;
  const Value::Array one{*v}, &list = v->array() != nullptr ? *v->array() : one;
  if (v->array() != nullptr && static_cast<Index>(list.size()) != layers)
    throw Error("InvalidConfig", concat("config: \"value_dim\" has ", list.size(),
                                        " entries, expected one for each of ", layers, " layers"));
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

// A rank of the config, or where it is null what the layer chooses: factor times the root of the hidden size,
// rounded to a multiple of 32 (half to even).
Index rank(const Value& config, const char* key, Index otherwise, double factor, Index hidden) {
  if (const Value* v = config.find(key); v == nullptr || !v->is_null())
    return positive(config, key, otherwise);
  return std::max<Index>(32,
                         static_cast<Index>(std::nearbyint(factor * std::sqrt(double(hidden)) / 32)) * 32);
}

}  // namespace

Rwkv7LmConfig Rwkv7LmConfig::from(const Value& config) {
  Rwkv7LmConfig c{RwkvConfig::from(config, 4)};
  if (c.attention.has(0))  // whose values would be the first ones?
    unsupported("attn", "attention in layer 0", "attention behind the first layer");
  Rwkv7Config& m = c.mixer;
  m.hidden = c.hidden_size;
  m.head_dim = head_width(config, m.hidden);
  m.heads = m.hidden / m.head_dim;
  m.value_dim = value_width(config, m.hidden, c.layers) / m.heads;
  const double wider = static_cast<double>(m.head_dim) / 64;
  m.decay_rank = rank(config, "decay_low_rank_dim", 64, 2.5 * wider, m.hidden);
  m.gate_rank = rank(config, "gate_low_rank_dim", 128, 5, m.hidden);
  m.rate_rank = rank(config, "a_low_rank_dim", 64, 2.5 * wider, m.hidden);
  m.value_rank = rank(config, "v_low_rank_dim", 16, 1.7 * wider, m.hidden);
  m.norm_eps = c.norm_eps;
  // Unfused, the keys' norm is max(|k|, 1e-12).
  m.key_eps = config.get_boolean("fuse_norm", true) ? 1e-6f : 1e-24f;
  return c;
}

extern const Model model_rwkv7;
const Model model_rwkv7{"rwkv7", load_rwkv7<CpuExec>};

}  // namespace v0
}  // namespace ashlar
