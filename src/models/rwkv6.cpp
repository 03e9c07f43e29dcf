// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/rwkv6.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// "<key>" times the hidden size, in so many heads; the width of one of them.
Index head_width(const Value& config, const char* key, double otherwise, Index hidden, Index heads) {
  const double expand = config.get_number(key, otherwise), wide = expand * static_cast<double>(hidden);
  const Index width = wide >= 1 && wide < 0x1p31 ? static_cast<Index>(wide) : 0;
  if (width == 0 || width % heads != 0)
    throw Error("InvalidConfig", concat("config: \"", key, "\" is ", expand, " and \"hidden_size\" ", hidden,
                                        ", expected a product that is a multiple of \"num_heads\", ", heads));
  return width / heads;
}

}  // namespace

Rwkv6Config rwkv6_layer(const Value& config) {
  Rwkv6Config m;
  m.hidden = positive(config, "hidden_size");
  m.heads = positive(config, "num_heads", 4);
  m.key_dim = head_width(config, "expand_k", 0.5, m.hidden, m.heads);
  m.value_dim = head_width(config, "expand_v", 1, m.hidden, m.heads);
  m.mix_rank = positive(config, "proj_low_rank_dim", 32);
  m.decay_rank = positive(config, "gate_low_rank_dim", 64);
  m.norm_eps = static_cast<float>(config.get_number("norm_eps", 1e-5));
  m.gate = fla_activation(config.get_string("gate_fn", "swish"));
  return m;
}

Rwkv6LmConfig Rwkv6LmConfig::from(const Value& config) {
  Rwkv6LmConfig c{RwkvConfig::from(config, 3.5), rwkv6_layer(config)};
  c.channel_mix.receptance = true;
  return c;
}

extern const Model model_rwkv6;
const Model model_rwkv6{"rwkv6", load_rwkv6<CpuExec>};

}  // namespace v0
}  // namespace ashlar
