// SPDX-License-Identifier: Apache-2.0
// Olmo Hybrid in sizes to measure with random weights: three layers of Gated DeltaNet to one of attention.
#pragma once
#include <cstdlib>
#include <string>
#include <vector>

#include "ashlar/core/value.hpp"

namespace ashlar::bench {

struct OlmoHybrid {
  const char* name;
  Index hidden, intermediate, layers, heads, vocab, key_dim = 96, value_dim = 192, head_dim = 128;

  Index attention_layers() const { return layers / 4; }
  Index linear_layers() const { return layers - attention_layers(); }
  Value config() const {
    auto n = [](Index x) { return Value(static_cast<std::int64_t>(x)); };
    return Value::Object{{"model_type", Value(std::string("olmo_hybrid"))},
                         {"vocab_size", n(vocab)},
                         {"hidden_size", n(hidden)},
                         {"intermediate_size", n(intermediate)},
                         {"num_hidden_layers", n(layers)},
                         {"num_attention_heads", n(heads)},
                         {"linear_key_head_dim", n(key_dim)},
                         {"linear_value_head_dim", n(value_dim)}};
  }
  // Of a prompt of `tokens`: dense layers, the head once, the recurrence and attention.
  double prefill_flops(Index tokens, Index matmul_parameters) const {
    const double t = static_cast<double>(tokens), head = static_cast<double>(vocab * hidden);
    const double linear = 6.0 * static_cast<double>(linear_layers() * heads * key_dim * value_dim);
    const double attention = 4.0 * static_cast<double>(attention_layers() * heads * head_dim);
    return 2 * ((static_cast<double>(matmul_parameters) - head) * t + head) + linear * t +
           attention * t * (t + 1) / 2;
  }
  // Of one sequence's step at `position`: its keys and values of `kv_bytes` each read, its states read and
  // written.
  double cache_bytes(double position, Index kv_bytes) const {
    return position * static_cast<double>(2 * attention_layers() * heads * head_dim * kv_bytes) +
           2.0 * sizeof(float) * static_cast<double>(linear_layers() * heads * key_dim * value_dim);
  }

  std::vector<std::int32_t> ids(Index n) const {
    std::vector<std::int32_t> all;
    for (Index i = 0; i < n; ++i) all.push_back(static_cast<std::int32_t>(i * 7919 % vocab));
    return all;
  }
  // The released models' spelling.
  static bool present(std::string_view name) {
    constexpr std::string_view kPrefix = "model.layers.";
    const bool attention = name.starts_with(kPrefix) && std::atoi(name.data() + kPrefix.size()) % 4 == 3;
    if (name.ends_with("post_feedforward_layernorm.weight")) return attention;
    if (name.ends_with("input_layernorm.weight")) return !attention;
    return name == "lm_head.weight" || name.ends_with(".conv1d.weight");
  }
};

inline constexpr OlmoHybrid kOlmoHybrid1b{"olmo_hybrid_1b", 2048, 5632, 16, 16, 50304};
inline constexpr OlmoHybrid kOlmoHybrid7b{"olmo_hybrid_7b", 3840, 11008, 32, 30, 100352};

}  // namespace ashlar::bench
