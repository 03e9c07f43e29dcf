// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/mlp.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// OLMo 3 (Team OLMo, 2025): norms behind the parts, queries and keys normalised over the whole projection,
// sliding windows in most layers, context extension on the full ones alone.
struct Olmo3Config : DecoderConfig {
  std::vector<std::string> layer_types;  // "sliding_attention", "full_attention"
  Index window = 0;
  RopeFrequencies sliding_rope, full_rope;

  static Olmo3Config from(const Value& config);
  AttentionConfig attention(Index layer) const {
    const bool sliding = layer_types[static_cast<std::size_t>(layer)] == "sliding_attention";
    return {hidden_size,
            heads,
            kv_heads,
            head_dim,
            attention_bias,
            QkNorm::projection,
            norm_eps,
            sliding ? &sliding_rope : &full_rope,
            sliding ? window : 0};
  }
};

template <class Exec>
class Olmo3Block final : public DecoderBlock<Exec> {
 public:
  Olmo3Block(const Olmo3Config& c, Index layer, const ParameterReader<Exec>& r)
      : attention_(r.scope("self_attn"), c.attention(layer)),
        attention_norm_(r, "post_attention_layernorm.weight", c.hidden_size, c.norm_eps),
        mlp_(r.scope("mlp"), c.hidden_size, c.intermediate_size, c.activation),
        mlp_norm_(r, "post_feedforward_layernorm.weight", c.hidden_size, c.norm_eps) {}

  LayerState<Exec> new_state(Index capacity) const override { return attention_.new_state(capacity); }

  // h += norm(Attention(h));  h += norm(MLP(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    post_norm(h, attention_norm_, exec, [&](auto x, auto y) { attention_(x, y, batch, exec); });
    post_norm(h, mlp_norm_, exec, [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); });
  }

 private:
  Attention<Exec> attention_;
  Norm<Exec> attention_norm_;
  GatedMlp<Exec> mlp_;
  Norm<Exec> mlp_norm_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_olmo3(const Value& config, const Parameters& parameters, Exec& exec) {
  const Olmo3Config c = Olmo3Config::from(config);
  return make_decoder_lm(c, parameters, exec, [&](Index layer, const ParameterReader<Exec>& r) {
    return std::make_unique<Olmo3Block<Exec>>(c, layer, r);
  });
}

extern template class Olmo3Block<CpuExec>;

}  // namespace v0
}  // namespace ashlar
