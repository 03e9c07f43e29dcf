// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/models/fla_config.hpp"
#include "ashlar/nn/channel_mix.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// What the configurations of RWKV-6 and RWKV-7 share, as flash-linear-attention writes them.
struct RwkvConfig : DecoderConfig {
  bool input_norm = true, norm_bias = true;
  ChannelMixConfig channel_mix;
  HybridAttention attention;

  // `ratio`: of the MLP's width to the hidden size, where the config has neither.
  static RwkvConfig from(const Value& config, double ratio);
};

// A layer of RWKV: time mixing (or attention, in a hybrid), then channel mixing, with layer norms.
template <class Exec>
class RwkvBlock final : public DecoderBlock<Exec> {
 public:
  RwkvBlock(const RwkvConfig& c, Index layer, const ParameterReader<Exec>& r,
            std::unique_ptr<Mixer<Exec>> mixer)
      : mixer_(std::move(mixer)), mlp_(r.scope("ffn"), c.channel_mix) {
    auto norm = [&](const char* name) {
      return Norm<Exec>::layer(r, name, c.hidden_size, c.norm_eps, c.norm_bias);
    };
    if (c.input_norm && layer == 0) input_norm_ = norm("pre_norm");
    mixer_norm_ = norm("attn_norm");
    mlp_norm_ = norm("ffn_norm");
  }

  LayerState<Exec> new_state(Index capacity) const override {
    LayerState<Exec> state = mixer_->new_state(capacity);
    state.mlp_inputs = mlp_.new_inputs();
    return state;
  }

  // Layer 0: h <- norm(h).  Each: h += Mixer(norm(h));  h += ChannelMix(norm(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    if (input_norm_) input_norm_(h, h, exec);
    pre_norm(h, mixer_norm_, exec, [&](auto x, auto y) { (*mixer_)(x, y, batch, exec); });
    pre_norm(h, mlp_norm_, exec, [&](auto x, auto y) { mlp_(x, y, batch, exec); });
  }

 private:
  std::unique_ptr<Mixer<Exec>> mixer_;
  ChannelMix<Exec> mlp_;
  Norm<Exec> input_norm_, mixer_norm_, mlp_norm_;
};

// mixer(layer, reader of "model.layers.<layer>.attn.") is what mixes the tokens of the layers without
// attention.
template <class Exec, class MakeMixer>
std::unique_ptr<DecoderLm<Exec>> make_rwkv(const RwkvConfig& c, const Parameters& parameters, Exec& exec,
                                           MakeMixer&& mixer, Index shared_width = 0) {
  DecoderNames names;
  names.embedding = "model.embeddings.weight";
  auto block = [&](Index layer, const ParameterReader<Exec>& r) {
    const auto attn = r.scope("attn");
    return std::make_unique<RwkvBlock<Exec>>(
        c, layer, r, c.attention.has(layer) ? c.attention.make(layer, attn) : mixer(layer, attn));
  };
  auto norm = [&](const ParameterReader<Exec>& r) {
    return Norm<Exec>::layer(r, "model.norm", c.hidden_size, c.norm_eps, c.norm_bias);
  };
  return make_decoder_lm(c, parameters, exec, names, block, norm, shared_width);
}

extern template class RwkvBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
