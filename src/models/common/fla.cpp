// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/fla.hpp"

#include <cmath>

namespace ashlar {
inline namespace v0 {

FlaConfig FlaConfig::from(const Value& config, Index layers, double hidden_ratio) {
  if (const Value* q = config.find("quantization_config"); q != nullptr && !q->is_null())
    unsupported("quantization_config", q->get_string("quant_method", "quantized"),
                "none, f32, f16 or bf16 weights");
  if (const Value* block = config.find("attnres_block_size"); block != nullptr && !block->is_null())
    unsupported("attnres_block_size", concat(config.get_integer("attnres_block_size")), "null");
  FlaConfig c;
  c.vocab_size = positive(config, "vocab_size", 32000);
  c.hidden_size = positive(config, "hidden_size", 2048);
  c.layers = positive(config, "num_hidden_layers", layers);
  c.attention = HybridAttention::from(config, c.hidden_size, c.layers);
  // Nothing but a cache of keys and values has a length.
  c.max_positions = c.attention.any() ? positive(config, "max_position_embeddings", 2048) : kNoPositionLimit;
  c.norm_eps = static_cast<float>(config.get_number("norm_eps", config.get_number("rms_norm_eps", 1e-6)));
  c.activation = fla_activation(config.get_string("hidden_act", "swish"));
  c.tied = config.get_boolean("tie_word_embeddings", false);

  const double ratio = config.get_number("hidden_ratio", hidden_ratio);
  if (!(ratio > 0) || ratio > 1024)
    throw Error("InvalidConfig", concat("config: \"hidden_ratio\" is ", ratio, ", expected 0 to 1024"));
  // Two thirds, since there are three matrices; rounded up to a multiple of 256.
  const auto wide = static_cast<Index>(static_cast<double>(c.hidden_size) * ratio * 2 / 3);
  c.intermediate_size = positive(config, "intermediate_size", std::max<Index>(256, (wide + 255) / 256 * 256));
  return c;
}

Tensor<float, 2> read_lower_bounds(const ParameterLookup& r, Index layers, Index hidden) {
  const Tensor<float, 1> raw = to_floats(r.tensor("model.lower_bounds", {layers, hidden}));
  Tensor<float, 2> bounds({layers, hidden});
  for (Index i = 0; i < hidden; ++i) {
    auto at = [&](Index layer) { return static_cast<double>(raw.data()[layer * hidden + i]); };
    double most = at(0), sum = 0, below = 0;
    for (Index l = 1; l < layers; ++l) most = std::max(most, at(l));
    for (Index l = 0; l < layers; ++l) sum += std::exp(at(l) - most);
    for (Index l = 1; l < layers; ++l) {
      below += std::exp(at(l) - most) / sum;
      bounds.view()(l, i) = static_cast<float>(below);
    }
  }
  return bounds;
}

}  // namespace v0
}  // namespace ashlar
