// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <variant>

#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/mixers/gated_delta_net.hpp"
#include "ashlar/nn/mlp.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// Olmo Hybrid (arXiv 2604.03444): OLMo 3 with its sliding-window layers replaced by Gated DeltaNet with
// negative eigenvalues, and rotation dropped for long contexts.
struct OlmoHybridConfig : DecoderConfig {
  std::vector<std::string> layer_types;  // "linear_attention", "full_attention"
  GatedDeltaNetConfig linear;
  std::optional<RopeFrequencies> rope;  // none: no position encoding

  static OlmoHybridConfig from(const Value& config);
  bool is_linear(Index layer) const {
    return layer_types[static_cast<std::size_t>(layer)] == "linear_attention";
  }
  AttentionConfig attention() const {
    return {hidden_size,    heads,
            kv_heads,       head_dim,
            attention_bias, QkNorm::projection,
            norm_eps,       rope ? &*rope : nullptr};
  }
};

// Keys of model.layers.<i>.linear_attn, also as OLMo-core writes them. Of the convolution's weights only
// their sequence is certain: some writers cut q, k and v where their channels end, others into three equal
// parts, and some not at all.
template <class Exec>
GatedDeltaNetWeights<Exec> read_gated_delta_net(const ParameterReader<Exec>& r,
                                                const GatedDeltaNetConfig& c) {
  constexpr float kEps = 1e-5f;  // whatever the config says
  GatedDeltaNetWeights<Exec> w;
  w.q = Linear<Exec>(r, "q_proj", c.hidden, c.keys());
  w.k = Linear<Exec>(r, "k_proj", c.hidden, c.keys());
  w.v = Linear<Exec>(r, "v_proj", c.hidden, c.values());
  w.a = Linear<Exec>(r, "a_proj", c.hidden, c.value_heads);
  w.b = Linear<Exec>(r, "b_proj", c.hidden, c.value_heads);
  w.g = Linear<Exec>(r, "g_proj", c.hidden, c.values());
  w.o = Linear<Exec>(r, {"o_proj", "out_proj"}, c.values(), c.hidden);
  w.conv = ShortConvolution<Exec>(r.vector(read_joined_conv(r, c.channels(), c.conv_width)), c.channels(),
                                  c.conv_width);
  w.a_log = r.vector("A_log", c.value_heads);
  w.dt_bias = r.vector("dt_bias", c.value_heads);
  w.norm = Norm<Exec>(r, {"o_norm.weight", "norm.weight"}, c.value_dim, kEps);
  return w;
}
// [channels, width] from conv1d.weight, or {q,k,v}_conv1d.weight one after another.
Tensor<float, 1> read_joined_conv(const ParameterLookup& r, Index channels, Index width);

// Whether a layer's norms stand before its parts (input_layernorm) or behind them
// (post_feedforward_layernorm).
enum class NormPlace : std::uint8_t { before, behind };
NormPlace norm_place(const ParameterLookup& layer);

template <class Exec>
class OlmoHybridBlock final : public DecoderBlock<Exec> {
 public:
  OlmoHybridBlock(const OlmoHybridConfig& c, Index layer, const ParameterReader<Exec>& r)
      : place_(norm_place(r)),
        mixer_(make_mixer(c, layer, r)),
        mlp_(r.scope("mlp"), c.hidden_size, c.intermediate_size, c.activation) {
    const Names before = {"input_layernorm.weight", "attention_layer_norm.weight"};
    const Names between = {"post_attention_layernorm.weight", "feedforward_layer_norm.weight"};
    const bool pre = place_ == NormPlace::before;
    mixer_norm_ = Norm<Exec>(r, pre ? before : between, c.hidden_size, c.norm_eps);
    mlp_norm_ = Norm<Exec>(r, pre ? between : "post_feedforward_layernorm.weight", c.hidden_size, c.norm_eps);
  }

  LayerState<Exec> new_state(Index capacity) const override {
    return std::visit([&](const auto& mixer) { return mixer.new_state(capacity); }, mixer_);
  }

  // Linear layers:     h += GatedDeltaNet(norm(h));  h += MLP(norm(h))
  // attention layers:  h += norm(Attention(h));      h += norm(MLP(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    auto mix = [&](auto x, auto y) {
      std::visit([&](const auto& mixer) { mixer(x, y, batch, exec); }, mixer_);
    };
    auto mlp = [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); };
    if (place_ == NormPlace::before) {
      pre_norm(h, mixer_norm_, exec, mix);
      pre_norm(h, mlp_norm_, exec, mlp);
    } else {
      post_norm(h, mixer_norm_, exec, mix);
      post_norm(h, mlp_norm_, exec, mlp);
    }
  }

 private:
  using Mixer = std::variant<GatedDeltaNet<Exec>, Attention<Exec>>;

  static Mixer make_mixer(const OlmoHybridConfig& c, Index layer, const ParameterReader<Exec>& r) {
    if (!c.is_linear(layer)) return Attention<Exec>(r.scope("self_attn"), c.attention());
    return GatedDeltaNet<Exec>(c.linear, read_gated_delta_net(r.scope("linear_attn"), c.linear));
  }

  NormPlace place_;
  Mixer mixer_;
  GatedMlp<Exec> mlp_;
  Norm<Exec> mixer_norm_, mlp_norm_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_olmo_hybrid(const Value& config, const Parameters& parameters,
                                                  Exec& exec) {
  const OlmoHybridConfig c = OlmoHybridConfig::from(config);
  return make_decoder_lm(c, parameters, exec, [&](Index layer, const ParameterReader<Exec>& r) {
    return std::make_unique<OlmoHybridBlock<Exec>>(c, layer, r);
  });
}

extern template class OlmoHybridBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
