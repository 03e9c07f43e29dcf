// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/mlp.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// Llama 1 to 3.x (Touvron et al., 2023; Grattafiori et al., 2024).
struct LlamaConfig : DecoderConfig {
  bool mlp_bias = false;
  RopeFrequencies rope;

  static LlamaConfig from(const Value& config);
  AttentionConfig attention() const {
    return {hidden_size, heads, kv_heads, head_dim, attention_bias, QkNorm::none, norm_eps, &rope};
  }
};

template <class Exec>
class LlamaBlock final : public DecoderBlock<Exec> {
 public:
  LlamaBlock(const LlamaConfig& c, const ParameterReader<Exec>& r)
      : attention_norm_(r, "input_layernorm.weight", c.hidden_size, c.norm_eps),
        attention_(r.scope("self_attn"), c.attention()),
        mlp_norm_(r, "post_attention_layernorm.weight", c.hidden_size, c.norm_eps),
        mlp_(r.scope("mlp"), c.hidden_size, c.intermediate_size, c.activation, c.mlp_bias) {}

  LayerState<Exec> new_state(Index capacity) const override { return attention_.new_state(capacity); }

  // h += Attention(norm(h));  h += MLP(norm(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    pre_norm(h, attention_norm_, exec, [&](auto x, auto y) { attention_(x, y, batch, exec); });
    pre_norm(h, mlp_norm_, exec, [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); });
  }

 private:
  Norm<Exec> attention_norm_;
  Attention<Exec> attention_;
  Norm<Exec> mlp_norm_;
  GatedMlp<Exec> mlp_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_llama(const Value& config, const Parameters& parameters, Exec& exec) {
  const LlamaConfig c = LlamaConfig::from(config);
  return make_decoder_lm(c, parameters, exec, [&](Index, const ParameterReader<Exec>& r) {
    return std::make_unique<LlamaBlock<Exec>>(c, r);
  });
}

extern template class LlamaBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
