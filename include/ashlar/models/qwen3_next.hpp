// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/feed_forward.hpp"
#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/mixers/gated_delta_net.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// Qwen3-Next (Qwen Team, 2025): three layers of Gated DeltaNet to one of gated attention, mixtures of many
// experts, zero-centred norms.
struct Qwen3NextConfig : DecoderConfig {
  // What the rows of a linear layer's projections are: those of one key head after another (Qwen3-Next), or
  // q, k and v one after another, and the others in matrices of their own (Qwen3.5).
  enum class Projections : std::uint8_t { by_key_head, separate };

  std::vector<std::string> layer_types;  // "linear_attention", "full_attention"
  GatedDeltaNetConfig linear;
  Projections projections = Projections::by_key_head;
  RopeFrequencies rope;
  bool output_gate = true;
  MoeConfig moe;
  std::vector<bool> sparse;  // which layers have experts

  static Qwen3NextConfig from(const Value& config);
  AttentionConfig attention() const {
    AttentionConfig a{hidden_size, heads, kv_heads, head_dim, attention_bias, QkNorm::head, norm_eps, &rope};
    a.norm_weight_offset = 1;
    a.output_gate = output_gate;
    return a;
  }
};

// Rows [begin, begin + count) of each of `groups` groups of `stride` rows.
std::vector<Index> rows_of_groups(Index groups, Index stride, Index begin, Index count);

// Keys of model.layers.<i>.linear_attn.
template <class Exec>
GatedDeltaNetWeights<Exec> read_qwen_delta_net(const ParameterReader<Exec>& r,
                                               const Qwen3NextConfig& config) {
  const GatedDeltaNetConfig& c = config.linear;
  const Index group = c.value_heads / c.key_heads, k = c.key_dim, v = group * c.value_dim;
  GatedDeltaNetWeights<Exec> w;
  if (config.projections == Qwen3NextConfig::Projections::by_key_head) {
    const Parameter qkvz = r.tensor("in_proj_qkvz.weight", {2 * (c.keys() + c.values()), c.hidden});
    const Parameter ba = r.tensor("in_proj_ba.weight", {2 * c.value_heads, c.hidden});
    auto part = [&](const Parameter& all, Index stride, Index begin, Index count) {
      const auto rows = rows_of_groups(c.key_heads, stride, begin, count);
      return Linear<Exec>(r, take(all, rows), c.hidden, static_cast<Index>(rows.size()));
    };
    w.q = part(qkvz, 2 * (k + v), 0, k);
    w.k = part(qkvz, 2 * (k + v), k, k);
    w.v = part(qkvz, 2 * (k + v), 2 * k, v);
    w.g = part(qkvz, 2 * (k + v), 2 * k + v, v);
    w.b = part(ba, 2 * group, 0, group);
    w.a = part(ba, 2 * group, group, group);
  } else {
    const Parameter qkv = r.tensor("in_proj_qkv.weight", {c.channels(), c.hidden});
    w.q = Linear<Exec>(r, slice(qkv, 0, c.keys()), c.hidden, c.keys());
    w.k = Linear<Exec>(r, slice(qkv, c.keys(), 2 * c.keys()), c.hidden, c.keys());
    w.v = Linear<Exec>(r, slice(qkv, 2 * c.keys(), c.channels()), c.hidden, c.values());
    w.g = Linear<Exec>(r, "in_proj_z", c.hidden, c.values());
    w.b = Linear<Exec>(r, "in_proj_b", c.hidden, c.value_heads);
    w.a = Linear<Exec>(r, "in_proj_a", c.hidden, c.value_heads);
  }
  w.o = Linear<Exec>(r, "out_proj", c.values(), c.hidden);
  w.conv =
      ShortConvolution<Exec>(r.vector(to_floats(r.tensor("conv1d.weight", {c.channels(), 1, c.conv_width}))),
                             c.channels(), c.conv_width, config.activation);
  w.a_log = r.vector("A_log", c.value_heads);
  w.dt_bias = r.vector("dt_bias", c.value_heads);
  w.norm = Norm<Exec>(r, "norm.weight", c.value_dim, config.norm_eps);  // not zero-centred
  return w;
}

template <class Exec>
class Qwen3NextBlock final : public DecoderBlock<Exec> {
 public:
  Qwen3NextBlock(const Qwen3NextConfig& c, Index layer, const ParameterReader<Exec>& r)
      : mixer_norm_(r, "input_layernorm.weight", c.hidden_size, c.norm_eps, 1),
        mixer_(make_mixer(c, layer, r)),
        mlp_norm_(r, "post_attention_layernorm.weight", c.hidden_size, c.norm_eps, 1),
        mlp_(make_mlp(c, layer, r.scope("mlp"))) {}

  LayerState<Exec> new_state(Index capacity) const override { return mixer_->new_state(capacity); }

  // h += Mixer(norm(h));  h += MLP(norm(h)), either a mixture of experts
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    pre_norm(h, mixer_norm_, exec, [&](auto x, auto y) { (*mixer_)(x, y, batch, exec); });
    pre_norm(h, mlp_norm_, exec, [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); });
  }

 private:
  static std::unique_ptr<Mixer<Exec>> make_mixer(const Qwen3NextConfig& c, Index layer,
                                                 const ParameterReader<Exec>& r) {
    if (c.layer_types[static_cast<std::size_t>(layer)] == "full_attention")
      return std::make_unique<Attention<Exec>>(r.scope("self_attn"), c.attention());
    return std::make_unique<GatedDeltaNet<Exec>>(c.linear, read_qwen_delta_net(r.scope("linear_attn"), c));
  }
  static FeedForward<Exec> make_mlp(const Qwen3NextConfig& c, Index layer, const ParameterReader<Exec>& r) {
    if (c.sparse[static_cast<std::size_t>(layer)]) return MixtureOfExperts<Exec>(r, c.moe);
    return GatedMlp<Exec>(r, c.hidden_size, c.intermediate_size, c.activation);
  }

  Norm<Exec> mixer_norm_;
  std::unique_ptr<Mixer<Exec>> mixer_;
  Norm<Exec> mlp_norm_;
  FeedForward<Exec> mlp_;
};

// The blocks and what surrounds them, from a checkpoint whose names are `names`.
template <class Exec>
std::unique_ptr<DecoderLm<Exec>> make_qwen(const Qwen3NextConfig& c, const Parameters& parameters, Exec& exec,
                                           const DecoderNames& names = {}) {
  return make_decoder_lm(
      c, parameters, exec, names,
      [&](Index layer, const ParameterReader<Exec>& r) {
        return std::make_unique<Qwen3NextBlock<Exec>>(c, layer, r);
      },
      [&](const ParameterReader<Exec>& r) {
        return Norm<Exec>(r, names.norm, c.hidden_size, c.norm_eps, 1);
      });
}

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_qwen3_next(const Value& config, const Parameters& parameters,
                                                 Exec& exec) {
  return make_qwen(Qwen3NextConfig::from(config), parameters, exec);
}

extern template class Qwen3NextBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
