// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/moe.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// gpt-oss (OpenAI, 2025): attention with a sink in each head, sliding windows in every other layer, mixtures
// of experts with clipped gates and biases. Experts are f32, f16 or bf16.
struct GptOssConfig : DecoderConfig {
  std::vector<std::string> layer_types;  // "sliding_attention", "full_attention"
  Index window = 0;
  RopeFrequencies sliding_rope, full_rope;
  MoeConfig moe;

  static GptOssConfig from(const Value& config);
  AttentionConfig attention(Index layer) const {
    const bool sliding = layer_types[static_cast<std::size_t>(layer)] == "sliding_attention";
    AttentionConfig a{hidden_size,         heads,        kv_heads, head_dim,
                      attention_bias,      QkNorm::none, norm_eps, sliding ? &sliding_rope : &full_rope,
                      sliding ? window : 0};
    a.sinks = true;
    return a;
  }
};

template <class Exec>
class GptOssBlock final : public DecoderBlock<Exec> {
 public:
  GptOssBlock(const GptOssConfig& c, Index layer, const ParameterReader<Exec>& r)
      : attention_norm_(r, "input_layernorm.weight", c.hidden_size, c.norm_eps),
        attention_(r.scope("self_attn"), c.attention(layer)),
        moe_norm_(r, "post_attention_layernorm.weight", c.hidden_size, c.norm_eps),
        moe_(r.scope("mlp"), c.moe) {}

  LayerState<Exec> new_state(Index capacity) const override { return attention_.new_state(capacity); }

  // h += Attention(norm(h));  h += MoE(norm(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    pre_norm(h, attention_norm_, exec, [&](auto x, auto y) { attention_(x, y, batch, exec); });
    pre_norm(h, moe_norm_, exec, [&](auto x, auto y) { moe_(x, y, batch.phase, exec); });
  }

 private:
  Norm<Exec> attention_norm_;
  Attention<Exec> attention_;
  Norm<Exec> moe_norm_;
  MixtureOfExperts<Exec> moe_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_gpt_oss(const Value& config, const Parameters& parameters, Exec& exec) {
  const GptOssConfig c = GptOssConfig::from(config);
  return make_decoder_lm(c, parameters, exec, [&](Index layer, const ParameterReader<Exec>& r) {
    return std::make_unique<GptOssBlock<Exec>>(c, layer, r);
  });
}

extern template class GptOssBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
