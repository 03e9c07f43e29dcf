// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/feed_forward.hpp"
#include "ashlar/nn/mixers/kda.hpp"
#include "ashlar/nn/mixers/latent_attention.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// Kimi Linear (Kimi Team, 2025): three layers of Kimi delta attention to one of latent attention without
// rotation, and DeepSeek-V3's mixture of experts. The configuration may be the authors' or transformers'.
struct KimiLinearConfig : DecoderConfig {
  std::vector<std::string> layer_types;  // "linear_attention", "full_attention"
  std::vector<bool> sparse;              // which layers have experts
  KimiDeltaAttentionConfig linear;
  bool full_rank_gate = false;  // of the linear layers
  LatentAttentionConfig latent;
  MoeConfig moe;
  Index mlp_width = 0;  // of layers without experts

  static KimiLinearConfig from(const Value& config);
};

// Keys of a linear layer's self_attn.
template <class Exec>
KimiDeltaAttentionWeights<Exec> read_kimi_kda(const ParameterReader<Exec>& r,
                                              const KimiLinearConfig& config) {
  const KimiDeltaAttentionConfig& c = config.linear;
  const Activation silu = Activation::silu;
  LowRankLinear<Exec> low_rank_gate;
  Linear<Exec> full_rank_gate;
  if (config.full_rank_gate)
    full_rank_gate = Linear<Exec>(r, "g_proj", c.hidden, c.values());
  else
    low_rank_gate = LowRankLinear<Exec>(r, "g_a_proj", "g_b_proj", c.hidden,
                                        r.rows("g_a_proj.weight", c.gate_rank), c.values());
  return {{r, c.hidden, {c.keys(), c.keys(), c.values()}, c.conv, silu, silu},
          {r, "f_a_proj", "f_b_proj", c.hidden, r.rows("f_a_proj.weight", c.decay_rank), c.keys()},
          std::move(low_rank_gate),
          {r, "b_proj", c.hidden, c.value_heads},
          r.vector(to_floats(r.flat("A_log", c.value_heads))),
          r.vector(to_floats(r.flat("dt_bias", c.keys()))),
          {{r, "o_proj", c.values(), c.hidden},
           {r, "o_norm.weight", c.value_dim, c.norm_eps},
           c.value_dim,
           std::move(full_rank_gate),
           Activation::sigmoid}};
}

template <class Exec>
class KimiLinearBlock final : public DecoderBlock<Exec> {
 public:
  KimiLinearBlock(const KimiLinearConfig& c, Index layer, const ParameterReader<Exec>& r)
      : mixer_norm_(r, "input_layernorm.weight", c.hidden_size, c.norm_eps),
        mixer_(make_mixer(c, layer, r.scope("self_attn"))),
        mlp_norm_(r, "post_attention_layernorm.weight", c.hidden_size, c.norm_eps),
        mlp_(make_mlp(c, layer, r)) {}

  LayerState<Exec> new_state(Index capacity) const override { return mixer_->new_state(capacity); }

  // h += Mixer(norm(h));  h += MLP(norm(h)), either a mixture of experts
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    pre_norm(h, mixer_norm_, exec, [&](auto x, auto y) { (*mixer_)(x, y, batch, exec); });
    pre_norm(h, mlp_norm_, exec, [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); });
  }

 private:
  static std::unique_ptr<Mixer<Exec>> make_mixer(const KimiLinearConfig& c, Index layer,
                                                 const ParameterReader<Exec>& r) {
    if (c.layer_types[static_cast<std::size_t>(layer)] == "full_attention")
      return std::make_unique<LatentAttention<Exec>>(r, c.latent);
    return std::make_unique<KimiDeltaAttention<Exec>>(c.linear, read_kimi_kda(r, c));
  }
  // Below mlp, or all of it, dense or not, below block_sparse_moe, as transformers 5 writes it.
  static FeedForward<Exec> make_mlp(const KimiLinearConfig& c, Index layer, const ParameterReader<Exec>& r) {
    const bool sparse = c.sparse[static_cast<std::size_t>(layer)];
    const char* key = sparse ? "block_sparse_moe.gate.weight" : "block_sparse_moe.gate_proj.weight";
    const auto part = r.scope(r.contains(key) ? "block_sparse_moe" : "mlp");
    if (sparse) return MixtureOfExperts<Exec>(part, c.moe);
    return GatedMlp<Exec>(part, c.hidden_size, c.mlp_width, c.activation);
  }

  Norm<Exec> mixer_norm_;
  std::unique_ptr<Mixer<Exec>> mixer_;
  Norm<Exec> mlp_norm_;
  FeedForward<Exec> mlp_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_kimi_linear(const Value& config, const Parameters& parameters,
                                                  Exec& exec) {
  const KimiLinearConfig c = KimiLinearConfig::from(config);
  return make_decoder_lm(c, parameters, exec, [&](Index layer, const ParameterReader<Exec>& r) {
    return std::make_unique<KimiLinearBlock<Exec>>(c, layer, r);
  });
}

extern template class KimiLinearBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
