// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hf_config.hpp"

#include <algorithm>
#include <cmath>

namespace ashlar {
inline namespace v0 {
namespace {

constexpr Index kLargest = Index{1} << 31;  // products of two stay far from overflow

// "rope_parameters" for this layer type, or "rope_scaling"; null when there is none.
const Value* rope_dictionary(const Value& config, std::string_view layer_type) {
  const Value* parameters = given(config, "rope_parameters");
  if (parameters == nullptr) return given(config, "rope_scaling");
  const Value* mine = given(*parameters, layer_type);
  return mine != nullptr && mine->object() != nullptr ? mine : parameters;
}

RopeFrequencies yarn(const Value& rope, double theta, const DecoderConfig& c, Index dim) {
  const Index original = positive(rope, "original_max_position_embeddings", c.max_positions);
  YarnScaling s{given(rope, "factor") != nullptr
                    ? positive_number(rope, "factor")
                    : static_cast<double>(c.max_positions) / static_cast<double>(original),
                original};
  s.beta_fast = rope.get_number("beta_fast", s.beta_fast);
  s.beta_slow = rope.get_number("beta_slow", s.beta_slow);
  s.truncate = rope.get_boolean("truncate", true);
  s.attention_factor = rope.get_number("attention_factor", 0);
  // DeepSeek's pair of multipliers.
  const double mscale = rope.get_number("mscale", 0), all = rope.get_number("mscale_all_dim", 0);
  auto magnitude = [&](double m) { return s.factor <= 1 ? 1 : 0.1 * m * std::log(s.factor) + 1; };
  if (s.attention_factor == 0 && mscale != 0 && all != 0)
    s.attention_factor = magnitude(mscale) / magnitude(all);
  return rope_frequencies(dim, theta, s);
}

// Of `dim` channels of a head.
RopeFrequencies scaled(const Value& rope, double theta, const DecoderConfig& c, Index dim) {
  const std::string type = rope.get_string("rope_type", rope.get_string("type", "default"));
  if (type == "default") return rope_frequencies(dim, theta);
  if (type == "yarn") return yarn(rope, theta, c, dim);
  if (type == "linear") {
    RopeFrequencies f = rope_frequencies(dim, theta);
    const double factor = positive_number(rope, "factor");
    for (Index i = 0; i < f.inverse.size(); ++i)
      f.inverse.data()[i] = static_cast<float>(static_cast<double>(f.inverse.data()[i]) / factor);
    return f;
  }
  if (type == "llama3")
    return rope_frequencies(
        dim, theta,
        Llama3Scaling{positive_number(rope, "factor"), positive_number(rope, "low_freq_factor"),
                      positive_number(rope, "high_freq_factor"),
                      positive(rope, "original_max_position_embeddings")});
  unsupported("rope_type", type, "default, linear, llama3, yarn");
}

void expect_even(Index head_dim) {
  if (head_dim % 2 != 0)
    throw Error("InvalidConfig",
                concat("config: \"head_dim\" is ", head_dim, ", expected an even number for rope"));
}

// How many of a head's channels turn.
Index rotated_channels(const Value& config, const Value* rope, Index head_dim, double part) {
  constexpr std::string_view key = "partial_rotary_factor";
  const double factor = rope != nullptr && given(*rope, key) != nullptr ? rope->get_number(key)
                        : part != 0                                     ? config.get_number(key, part)
                                                                        : 1;
  if (part == 0 && factor != 1) unsupported(key, concat(factor), "1");
  if (!(factor > 0 && factor <= 1))
    throw Error("InvalidConfig",
                concat("config: \"", key, "\" is ", factor, ", expected more than 0, up to 1"));
  expect_even(head_dim);
  const Index dim = static_cast<Index>(static_cast<double>(head_dim) * factor);
  if (dim < 2 || dim % 2 != 0)
    throw Error("InvalidConfig", concat("config: \"", key, "\" is ", factor, " of \"head_dim\", ", head_dim,
                                        ", expected an even number of channels, at least 2"));
  return dim;
}

}  // namespace

const Value* given(const Value& config, std::string_view key) {
  const Value* v = config.find(key);
  return v == nullptr || v->is_null() ? nullptr : v;
}

void unsupported(std::string_view key, std::string_view value, std::string_view supported) {
  throw Error("UnsupportedConfig", concat("config: \"", key, "\" is \"", value,
                                          "\", which is not supported; supported: ", supported));
}

Activation activation_of(const std::string& name) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  if (name == "relu2") return Activation::relu2;
  unsupported("hidden_act", name, "silu, gelu, gelu_new, gelu_pytorch_tanh, relu, relu2");
}

Index positive(const Value& config, std::string_view key) {
  const Index n = config.get_integer(key);
  if (n < 1 || n > kLargest)
    throw Error("InvalidConfig",
                concat("config: \"", key, "\" is ", n, ", expected a number from 1 to ", kLargest));
  return n;
}

Index positive(const Value& config, std::string_view key, Index otherwise) {
  return given(config, key) != nullptr ? positive(config, key) : otherwise;
}

double positive_number(const Value& config, std::string_view key) {
  const double x = config.get_number(key);
  if (!(x > 0) || !std::isfinite(x))
    throw Error("InvalidConfig", concat("config: \"", key, "\" is ", x, ", expected a positive number"));
  return x;
}

double positive_number(const Value& config, std::string_view key, double otherwise) {
  return given(config, key) != nullptr ? positive_number(config, key) : otherwise;
}

DecoderConfig DecoderConfig::from(const Value& config, Index max_positions, Index intermediate,
                                  Index head_dim) {
  if (const Value* q = given(config, "quantization_config"))
    unsupported("quantization_config", q->get_string("quant_method", "quantized"),
                "none, f32, f16 or bf16 weights");
  DecoderConfig c;
  c.vocab_size = positive(config, "vocab_size");
  c.hidden_size = positive(config, "hidden_size");
  c.intermediate_size = intermediate > 0 ? positive(config, "intermediate_size", intermediate)
                                         : positive(config, "intermediate_size");
  c.layers = positive(config, "num_hidden_layers");
  c.heads = positive(config, "num_attention_heads");
  c.kv_heads = positive(config, "num_key_value_heads", c.heads);
  c.max_positions = positive(config, "max_position_embeddings", max_positions);
  if (head_dim == 0 && given(config, "head_dim") == nullptr && c.hidden_size % c.heads != 0)
    throw Error("InvalidConfig",
                concat("config: \"hidden_size\" is ", c.hidden_size, ", expected a multiple of ", c.heads,
                       " heads where \"head_dim\" is absent"));
  c.head_dim = positive(config, "head_dim", head_dim != 0 ? head_dim : c.hidden_size / c.heads);
  if (c.heads % c.kv_heads != 0)
    throw Error("InvalidConfig", concat("config: \"num_attention_heads\" is ", c.heads,
                                        ", expected a multiple of \"num_key_value_heads\", ", c.kv_heads));
  c.norm_eps = static_cast<float>(config.get_number("rms_norm_eps", 1e-6));
  c.activation = activation_of(config.get_string("hidden_act", "silu"));
  c.attention_bias = config.get_boolean("attention_bias", false);
  c.tied = config.get_boolean("tie_word_embeddings", false);
  return c;
}

std::vector<std::string> layer_types(const Value& config, Index layers,
                                     std::initializer_list<const char*> known, std::string_view otherwise) {
  std::vector<std::string> types;
  const Value* list = given(config, "layer_types");
  if (list == nullptr)
    return std::vector<std::string>(static_cast<std::size_t>(layers), std::string(otherwise));
  if (list->array() == nullptr || static_cast<Index>(list->array()->size()) != layers)
    throw Error("InvalidConfig", concat("config: \"layer_types\" is not a list of ", layers, " names"));
  std::string supported;
  for (const char* k : known) supported.append(supported.empty() ? "" : ", ").append(k);
  for (const Value& type : *list->array()) {
    if (type.string() == nullptr)
      throw Error("InvalidConfig", "config: \"layer_types\" holds what is not a name");
    if (std::none_of(known.begin(), known.end(), [&](const char* k) { return *type.string() == k; }))
      unsupported("layer_types", *type.string(), supported);
    types.push_back(*type.string());
  }
  return types;
}

std::vector<std::string> window_layer_types(const Value& config, Index layers, Index period) {
  if (given(config, "layer_types") != nullptr)
    return layer_types(config, layers, {"sliding_attention", "full_attention"}, "");
  std::vector<std::string> types;
  for (Index i = 0; i < layers; ++i)
    types.push_back((i + 1) % period == 0 ? "full_attention" : "sliding_attention");
  return types;
}

// Of equal names the first is found.
Value text_part(const Value& config) {
  const Value* text = given(config, "text_config");
  if (text == nullptr) return config;
  if (text->object() == nullptr) throw Error("InvalidConfig", "config: \"text_config\" is not an object");
  Value::Object members;
  for (const char* key : {"tie_word_embeddings", "quantization_config"})
    if (const Value* outer = given(config, key)) members.emplace_back(key, *outer);
  members.insert(members.end(), text->object()->begin(), text->object()->end());
  return members;
}

bool rope_is_per_layer_type(const Value& config) {
  const Value* parameters = given(config, "rope_parameters");
  if (parameters == nullptr || parameters->object() == nullptr) return false;
  for (const auto& [name, value] : *parameters->object())
    if (value.object() != nullptr) return true;
  return false;
}

std::optional<RopeFrequencies> rope_of(const Value& config, std::string_view layer_type,
                                       const DecoderConfig& c, std::optional<double> theta, double part) {
  const Value* rope = rope_dictionary(config, layer_type);
  if (rope != nullptr && given(*rope, "rope_theta") != nullptr)
    theta = positive_number(*rope, "rope_theta");
  else if (given(config, "rope_theta") != nullptr)
    theta = positive_number(config, "rope_theta");
  if (!theta) return std::nullopt;
  const Index dim = rotated_channels(config, rope, c.head_dim, part);
  return rope != nullptr ? scaled(*rope, *theta, c, dim) : rope_frequencies(dim, *theta);
}

RopeFrequencies unscaled_rope_of(const Value& config, const DecoderConfig& c, double theta) {
  const Value* rope = rope_dictionary(config, "");
  if (rope != nullptr && given(*rope, "rope_theta") != nullptr)
    theta = positive_number(*rope, "rope_theta");
  else if (given(config, "rope_theta") != nullptr)
    theta = positive_number(config, "rope_theta");
  expect_even(c.head_dim);
  return rope_frequencies(c.head_dim, theta);
}

}  // namespace v0
}  // namespace ashlar
