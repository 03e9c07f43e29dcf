// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/minimax.hpp"

#include <cmath>

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

MiniMaxConfig::Factors factors_of(const Value& config, const std::string& part) {
  auto factor = [&](const char* side) {
    const std::string key = part + side;
    const double x = config.get_number(key, 1);
    if (!std::isfinite(x))
      throw Error("InvalidConfig", concat("config: \"", key, "\" is ", x, ", expected a finite number"));
    return static_cast<float>(x);
  };
  return {factor("_alpha_factor"), factor("_beta_factor")};
}

}  // namespace

template class MiniMaxBlock<CpuExec>;

MiniMaxConfig MiniMaxConfig::from(const Value& config) {
  MiniMaxConfig c{DecoderConfig::from(config, 131072)};
  c.norm_eps = static_cast<float>(config.get_number("rms_norm_eps", 1e-5));
  if (given(config, "layer_types")) {
    c.layer_types = ashlar::layer_types(config, c.layers, {"linear_attention", "full_attention"}, "");
  } else {
    for (Index i = 0; i < c.layers; ++i)
      c.layer_types.push_back(i % 2 == 0 ? "full_attention" : "linear_attention");
  }
  if (given(config, "sliding_window")) c.window = positive(config, "sliding_window");
  if (config.get_integer("shared_intermediate_size", 0) != 0)
    unsupported("shared_intermediate_size", concat(config.get_integer("shared_intermediate_size")), "0");
  c.rope = *rope_of(config, "full_attention", c, 1e6);
  c.moe = {c.hidden_size, c.intermediate_size,
           positive(config, "num_local_experts", positive(config, "num_experts", 8)),
           positive(config, "num_experts_per_tok", 2)};
  c.moe.activation = c.activation;
  if (c.moe.chosen > c.moe.experts)
    throw Error("InvalidConfig", concat("config: \"num_experts_per_tok\" is ", c.moe.chosen,
                                        ", expected at most \"num_local_experts\", ", c.moe.experts));
  c.full_factors = factors_of(config, "full_attn");
  c.linear_factors = factors_of(config, "linear_attn");
  c.mlp_factors = factors_of(config, "mlp");
  return c;
}

extern const Model model_minimax;
const Model model_minimax{"minimax", load_minimax<CpuExec>};

}  // namespace v0
}  // namespace ashlar
