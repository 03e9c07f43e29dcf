// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/mlp.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// Gemma 2 (Gemma Team, 2024) and Gemma 3 (Gemma Team, 2025): zero-centred norms before and behind each part,
// sliding windows in most layers, scores scaled by a number of their own. Embeddings are multiplied by
// sqrt(hidden_size), rounded to the type of the weights.
struct GemmaConfig : DecoderConfig {
  std::vector<std::string> layer_types;  // "sliding_attention", "full_attention"
  Index window = 0;
  RopeFrequencies sliding_rope, full_rope;
  QkNorm qk_norm = QkNorm::none;
  float scale = 0, score_soft_cap = 0;

  AttentionConfig attention(Index layer) const {
    const bool sliding = layer_types[static_cast<std::size_t>(layer)] == "sliding_attention";
    AttentionConfig a{hidden_size,         heads,   kv_heads, head_dim,
                      attention_bias,      qk_norm, norm_eps, sliding ? &sliding_rope : &full_rope,
                      sliding ? window : 0};
    a.norm_weight_offset = 1;
    a.scale = scale;
    a.soft_cap = score_soft_cap;
    return a;
  }
};

// Every second layer is full; scores and logits are capped.
struct Gemma2Config {
  static GemmaConfig from(const Value& config);
};

// Every sixth layer is full, with a rotation of its own; queries and keys are normalised. As in transformers,
// "attn_logit_softcapping" says nothing here. A configuration or checkpoint that has images too is read for
// its text part.
struct Gemma3Config {
  static GemmaConfig from(const Value& config);
};

DecoderNames gemma3_names(const Parameters& parameters);

template <class Exec>
class GemmaBlock final : public DecoderBlock<Exec> {
 public:
  GemmaBlock(const GemmaConfig& c, Index layer, const ParameterReader<Exec>& r)
      : attention_norm_(norm(c, r, "input_layernorm.weight")),
        attention_(r.scope("self_attn"), c.attention(layer)),
        attended_norm_(norm(c, r, "post_attention_layernorm.weight")),
        mlp_norm_(norm(c, r, "pre_feedforward_layernorm.weight")),
        mlp_(r.scope("mlp"), c.hidden_size, c.intermediate_size, c.activation),
        fed_norm_(norm(c, r, "post_feedforward_layernorm.weight")) {}

  LayerState<Exec> new_state(Index capacity) const override { return attention_.new_state(capacity); }

  // h += norm(Attention(norm(h)));  h += norm(MLP(norm(h)))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    sandwich_norm(h, attention_norm_, attended_norm_, exec,
                  [&](auto x, auto y) { attention_(x, y, batch, exec); });
    sandwich_norm(h, mlp_norm_, fed_norm_, exec, [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); });
  }

 private:
  static Norm<Exec> norm(const GemmaConfig& c, const ParameterReader<Exec>& r, const char* name) {
    return Norm<Exec>(r, name, c.hidden_size, c.norm_eps, 1);
  }

  Norm<Exec> attention_norm_;
  Attention<Exec> attention_;
  Norm<Exec> attended_norm_, mlp_norm_;
  GatedMlp<Exec> mlp_;
  Norm<Exec> fed_norm_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> make_gemma(const GemmaConfig& c, const Parameters& parameters, Exec& exec,
                                            const DecoderNames& names = {}) {
  return make_decoder_lm(
      c, parameters, exec, names,
      [&](Index layer, const ParameterReader<Exec>& r) {
        return std::make_unique<GemmaBlock<Exec>>(c, layer, r);
      },
      [&](const ParameterReader<Exec>& r) {
        return Norm<Exec>(r, names.norm, c.hidden_size, c.norm_eps, 1);
      });
}

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_gemma2(const Value& config, const Parameters& parameters, Exec& exec) {
  return make_gemma(Gemma2Config::from(config), parameters, exec);
}

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_gemma3(const Value& config, const Parameters& parameters, Exec& exec) {
  return make_gemma(Gemma3Config::from(config), parameters, exec, gemma3_names(parameters));
}

extern template class GemmaBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
