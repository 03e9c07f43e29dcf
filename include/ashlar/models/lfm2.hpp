// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/mixers/gated_short_conv.hpp"
#include "ashlar/nn/mlp.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// LFM2 (Liquid AI, 2025): gated short convolutions, and grouped attention in some layers.
struct Lfm2Config : DecoderConfig {
  std::vector<std::string> layer_types;  // "conv", "full_attention"
  Index conv_width = 0;
  bool conv_bias = false;
  Index mlp_width = 0;  // by the config's rule; the file's width counts
  RopeFrequencies rope;

  static Lfm2Config from(const Value& config);
  AttentionConfig attention() const {
    return {hidden_size, heads, kv_heads, head_dim, attention_bias, QkNorm::head, norm_eps, &rope};
  }
};

template <class Exec>
class Lfm2Block final : public DecoderBlock<Exec> {
 public:
  Lfm2Block(const Lfm2Config& c, Index layer, const ParameterReader<Exec>& r)
      : mixer_norm_(r, "operator_norm.weight", c.hidden_size, c.norm_eps),
        mixer_(make_mixer(c, layer, r)),
        mlp_norm_(r, "ffn_norm.weight", c.hidden_size, c.norm_eps),
        mlp_(make_mlp(c, r.scope("feed_forward"))) {}

  LayerState<Exec> new_state(Index capacity) const override { return mixer_->new_state(capacity); }

  // h += Mixer(norm(h));  h += MLP(norm(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    pre_norm(h, mixer_norm_, exec, [&](auto x, auto y) { (*mixer_)(x, y, batch, exec); });
    pre_norm(h, mlp_norm_, exec, [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); });
  }

 private:
  static std::unique_ptr<Mixer<Exec>> make_mixer(const Lfm2Config& c, Index layer,
                                                 const ParameterReader<Exec>& r) {
    if (c.layer_types[static_cast<std::size_t>(layer)] == "full_attention")
      return std::make_unique<Attention<Exec>>(r.scope("self_attn"), c.attention());
    return std::make_unique<GatedShortConv<Exec>>(r.scope("conv"), c.hidden_size, c.conv_width, c.conv_bias);
  }

  static GatedMlp<Exec> make_mlp(const Lfm2Config& c, const ParameterReader<Exec>& r) {
    return GatedMlp<Exec>(r, c.hidden_size, r.rows("w1.weight", c.mlp_width), c.activation, false,
                          kNumberedMlpNames);
  }

  Norm<Exec> mixer_norm_;
  std::unique_ptr<Mixer<Exec>> mixer_;
  Norm<Exec> mlp_norm_;
  GatedMlp<Exec> mlp_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_lfm2(const Value& config, const Parameters& parameters, Exec& exec) {
  const Lfm2Config c = Lfm2Config::from(config);
  DecoderNames names;
  names.norm = "model.embedding_norm.weight";
  return make_decoder_lm(
      c, parameters, exec,
      [&](Index layer, const ParameterReader<Exec>& r) {
        return std::make_unique<Lfm2Block<Exec>>(c, layer, r);
      },
      names);
}

extern template class Lfm2Block<CpuExec>;

}  // namespace v0
}  // namespace ashlar
