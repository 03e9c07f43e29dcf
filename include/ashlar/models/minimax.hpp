// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/mixers/lightning_attention.hpp"
#include "ashlar/nn/moe.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/residual/normed.hpp"

namespace ashlar {
inline namespace v0 {

// MiniMax-01 (MiniMax, 2025): lightning attention, softmax attention in some layers, Mixtral's mixture of
// experts, and a stream of normed tensors with weights for both sides of each sum.
struct MiniMaxConfig : DecoderConfig {
  // keep norm(h) + scale f(norm(h))
  struct Factors {
    float keep = 1, scale = 1;
  };

  std::vector<std::string> layer_types;  // "linear_attention", "full_attention"
  Index window = 0;
  RopeFrequencies rope;
  MoeConfig moe;
  Factors full_factors, linear_factors, mlp_factors;

  static MiniMaxConfig from(const Value& config);
  bool is_linear(Index layer) const {
    return layer_types[static_cast<std::size_t>(layer)] == "linear_attention";
  }
  AttentionConfig attention() const {
    return {hidden_size, heads, kv_heads, head_dim, attention_bias, QkNorm::none, norm_eps, &rope, window};
  }
};

template <class Exec>
class MiniMaxBlock final : public DecoderBlock<Exec> {
 public:
  MiniMaxBlock(const MiniMaxConfig& c, Index layer, const ParameterReader<Exec>& r)
      : mixer_norm_(r, "input_layernorm.weight", c.hidden_size, c.norm_eps),
        mixer_(make_mixer(c, layer, r.scope("self_attn"))),
        mixer_factors_(c.is_linear(layer) ? c.linear_factors : c.full_factors),
        moe_norm_(r, "post_attention_layernorm.weight", c.hidden_size, c.norm_eps),
        moe_(r.scope(r.contains("block_sparse_moe.gate.weight") ? "block_sparse_moe" : "mlp"), c.moe),
        moe_factors_(c.mlp_factors) {}

  LayerState<Exec> new_state(Index capacity) const override { return mixer_->new_state(capacity); }

  // h = keep norm(h) + scale Mixer(norm(h));  h = keep norm(h) + scale MoE(norm(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    normed_residual(h, mixer_norm_, mixer_factors_.keep, mixer_factors_.scale, exec,
                    [&](auto x, auto y) { (*mixer_)(x, y, batch, exec); });
    normed_residual(h, moe_norm_, moe_factors_.keep, moe_factors_.scale, exec,
                    [&](auto x, auto y) { moe_(x, y, batch.phase, exec); });
  }

 private:
  static std::unique_ptr<Mixer<Exec>> make_mixer(const MiniMaxConfig& c, Index layer,
                                                 const ParameterReader<Exec>& r) {
    if (!c.is_linear(layer)) return std::make_unique<Attention<Exec>>(r, c.attention());
    // The norm's eps is 1e-6 whatever the config says.
    return std::make_unique<LightningAttention<Exec>>(
        r, LightningAttentionConfig{c.hidden_size, c.heads, c.head_dim, c.activation},
        minimax_decay(c.heads, layer, c.layers));
  }

  Norm<Exec> mixer_norm_;
  std::unique_ptr<Mixer<Exec>> mixer_;
  MiniMaxConfig::Factors mixer_factors_;
  Norm<Exec> moe_norm_;
  MixtureOfExperts<Exec> moe_;
  MiniMaxConfig::Factors moe_factors_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_minimax(const Value& config, const Parameters& parameters, Exec& exec) {
  const MiniMaxConfig c = MiniMaxConfig::from(config);
  DecoderNames names;
  names.ignored = [](std::string_view name) {  // buffers that follow from the config
    return name.ends_with(".slope_rate") || name.ends_with(".query_decay") || name.ends_with(".key_decay") ||
           name.ends_with(".diagonal_decay");
  };
  return make_decoder_lm(
      c, parameters, exec,
      [&](Index layer, const ParameterReader<Exec>& r) {
        return std::make_unique<MiniMaxBlock<Exec>>(c, layer, r);
      },
      names);
}

extern template class MiniMaxBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
