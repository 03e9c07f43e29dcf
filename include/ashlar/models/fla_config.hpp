// SPDX-License-Identifier: Apache-2.0
// What the configurations of flash-linear-attention's models share.
#pragma once
#include <map>
#include <memory>

#include "ashlar/models/hf_config.hpp"
#include "ashlar/nn/mixers/attention.hpp"

namespace ashlar {
inline namespace v0 {

// The function that flash-linear-attention calls so in "hidden_act".
Activation fla_activation(const std::string& name);

// The layers of a hybrid that have softmax attention in place of the model's own mixer: "attn", which is
// null, or one
// {"layers", "num_heads", "num_kv_heads", "qkv_bias", "qk_norm", "window_size", "rope_theta"} or a list of
// them, each for some layers.
class HybridAttention {
 public:
  // Error("InvalidConfig") for layers that do not exist or are named twice, and for heads that do not divide.
  static HybridAttention from(const Value& config, Index hidden, Index layers);

  bool any() const { return !layers_.empty(); }
  bool has(Index layer) const { return layers_.contains(layer); }
  // `r` reads what is below the layer's "attn.".
  template <class Exec>
  std::unique_ptr<Mixer<Exec>> make(Index layer, const ParameterReader<Exec>& r) const {
    const Layer& mine = layers_.at(layer);
    AttentionConfig c = mine.attention;
    c.rope = &mine.rope;
    if (r.contains("q_norm.weight")) c.qk_norm = QkNorm::head;
    return std::make_unique<Attention<Exec>>(r, c);
  }

 private:
  struct Layer {
    AttentionConfig attention;
    RopeFrequencies rope;
  };
  std::map<Index, Layer> layers_;
};

}  // namespace v0
}  // namespace ashlar
