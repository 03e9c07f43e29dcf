// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/mlp.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// Which mixer each layer of a hybrid has: a number a layer, whose meaning is the caller's. 0 is the usual
// one, 1 the one in some layers.
class LayerPlan {
 public:
  explicit LayerPlan(Index layers, Index kind = 0) {
    if (layers < 1) refuse("LayerPlan", "layers is ", layers, ", expected 1 or more");
    kinds_.assign(static_cast<std::size_t>(layers), kind);
  }
  // r layers of kind 0, then one of kind 1, over and over; the first of kind 1 is layer `offset`, r when it
  // is not given. ratio(3, 8) has attention in layers 3 and 7.
  static LayerPlan ratio(Index r, Index layers, Index offset = -1) {
    LayerPlan plan(layers);
    if (r < 0) refuse("LayerPlan::ratio", "r is ", r, ", expected 0 or more");
    for (Index i = offset < 0 ? r : offset; i < layers; i += r + 1) plan.set(i, 1);
    return plan;
  }

  LayerPlan& set(Index layer, Index kind) {
    if (layer < 0 || layer >= size()) refuse("LayerPlan", "layer is ", layer, ", expected 0 to ", size() - 1);
    kinds_[static_cast<std::size_t>(layer)] = kind;
    return *this;
  }
  Index size() const { return static_cast<Index>(kinds_.size()); }
  Index operator[](Index layer) const { return kinds_[static_cast<std::size_t>(layer)]; }

 private:
  std::vector<Index> kinds_;
};

// Where a layer of a hybrid has its parts, below "<layers>.<i>.".
struct HybridNames : DecoderNames {
  Names mixer_norm = {"attn_norm.weight", "attn.norm.weight"};
  Names mlp_norm = {"mlp_norm.weight", "mlp.norm.weight"};
  std::string mixer = "attn", mlp = "mlp";
};

// A layer of any mixer:  h += Mixer(norm(h));  h += MLP(norm(h))
template <class Exec>
class HybridBlock final : public DecoderBlock<Exec> {
 public:
  HybridBlock(const DecoderConfig& c, const HybridNames& names, const ParameterReader<Exec>& r,
              std::unique_ptr<Mixer<Exec>> mixer)
      : mixer_norm_(r, names.mixer_norm, c.hidden_size, c.norm_eps),
        mlp_norm_(r, names.mlp_norm, c.hidden_size, c.norm_eps),
        mixer_(std::move(mixer)),
        mlp_(r.scope(names.mlp), c.hidden_size, c.intermediate_size, c.activation) {}

  LayerState<Exec> new_state(Index capacity) const override { return mixer_->new_state(capacity); }

  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    pre_norm(h, mixer_norm_, exec, [&](auto x, auto y) { (*mixer_)(x, y, batch, exec); });
    pre_norm(h, mlp_norm_, exec, [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); });
  }

 private:
  Norm<Exec> mixer_norm_, mlp_norm_;
  std::unique_ptr<Mixer<Exec>> mixer_;
  GatedMlp<Exec> mlp_;
};

// A language model whose layers each have the mixer that mixer(layer, reader of the mixer's keys) gives. Of
// the configuration, vocab_size, hidden_size, intermediate_size, layers and max_positions are needed. Gated
// DeltaNet 3:1 with attention, with random weights (or those of a checkpoint in their place):
//
//   CpuExec exec;
//   const DecoderConfig c{.vocab_size = 512, .hidden_size = 256, .intermediate_size = 768, .layers = 8,
//                         .max_positions = 4096};
//   const LayerPlan plan = LayerPlan::ratio(3, c.layers);
//   const auto model = make_hybrid_lm<CpuExec>(
//       c, RandomParameters(DType::f32), exec, [&](Index layer, const auto& r) -> MixerPtr<CpuExec> {
//         if (plan[layer] == 1) return make_mixer<Attention>(r, AttentionConfig{256, 4, 2, 64});
//         return make_mixer<GatedDeltaNet>(r, GatedDeltaNetConfig{256, 4, 4, 48, 96, 4});
//       });
//
// `shared`(reader of the whole checkpoint) may read what the layers have in common, before any layer.
template <class Exec, class MakeMixer, class ReadShared>
std::unique_ptr<DecoderLm<Exec>> make_hybrid_lm(const DecoderConfig& c, const Parameters& parameters,
                                                Exec& exec, const HybridNames& names, MakeMixer&& mixer,
                                                ReadShared&& shared) {
  auto block = [&](Index layer, const ParameterReader<Exec>& r) {
    return std::make_unique<HybridBlock<Exec>>(c, names, r, mixer(layer, r.scope(names.mixer)));
  };
  auto norm = [&](const ParameterReader<Exec>& r) {
    shared(r);
    return Norm<Exec>(r, names.norm, c.hidden_size, c.norm_eps);
  };
  return make_decoder_lm(c, parameters, exec, names, block, norm);
}

template <class Exec, class MakeMixer>
std::unique_ptr<DecoderLm<Exec>> make_hybrid_lm(const DecoderConfig& c, const Parameters& parameters,
                                                Exec& exec, MakeMixer&& mixer,
                                                const HybridNames& names = {}) {
  return make_hybrid_lm(c, parameters, exec, names, mixer, [](const ParameterReader<Exec>&) {});
}

// make_mixer<Attention>(reader, config)
template <class Exec>
using MixerPtr = std::unique_ptr<Mixer<Exec>>;
template <template <class> class M, class Exec, class... Config>
MixerPtr<Exec> make_mixer(const ParameterReader<Exec>& r, const Config&... config) {
  return std::make_unique<M<Exec>>(r, config...);
}

extern template class HybridBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
