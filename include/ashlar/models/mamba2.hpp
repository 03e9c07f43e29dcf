// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/nn/mixers/mamba2.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// Mamba-2 (Dao and Gu, 2024) as a language model without attention or MLP, of transformers and of
// flash-linear-attention, whose configurations have one "model_type" and differ in their names: the former's
// "layer_norm_epsilon" and "time_step_limit" are the latter's "norm_eps" and "dt_limit". The former's gated
// norm is over all channels, the latter's over those of a group.
struct Mamba2LmConfig : DecoderConfig {
  Mamba2Config mixer;

  static Mamba2LmConfig from(const Value& config);
};

// The mixer's part of a configuration of either writer, or of its layer alone.
enum class Mamba2Writer : std::uint8_t { transformers, fla };
Mamba2Config mamba2_layer(const Value& config, Mamba2Writer writer);

// Between which numbers a config clamps dt.
struct StepLimits {
  float low = 0, high = std::numeric_limits<float>::infinity();
};
StepLimits step_limits(const Value& config, std::string_view key);

template <class Exec>
class Mamba2Block final : public DecoderBlock<Exec> {
 public:
  Mamba2Block(const Mamba2LmConfig& c, const ParameterReader<Exec>& r)
      : mixer_(r.scope("mixer"), c.mixer), norm_(r, "norm.weight", c.hidden_size, c.norm_eps) {}

  LayerState<Exec> new_state(Index capacity) const override { return mixer_.new_state(capacity); }

  // h += Mamba2(norm(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    pre_norm(h, norm_, exec, [&](auto x, auto y) { mixer_(x, y, batch, exec); });
  }

 private:
  Mamba2<Exec> mixer_;
  Norm<Exec> norm_;
};

template <class Exec>
std::unique_ptr<DecoderLm<Exec>> load_mamba2(const Value& config, const Parameters& parameters, Exec& exec) {
  const Mamba2LmConfig c = Mamba2LmConfig::from(config);
  DecoderNames names;
  names.embedding = {"backbone.embeddings.weight", "backbone.embedding.weight"};
  names.norm = "backbone.norm_f.weight";
  names.layers = "backbone.layers";
  return make_decoder_lm(
      c, parameters, exec,
      [&](Index, const ParameterReader<Exec>& r) { return std::make_unique<Mamba2Block<Exec>>(c, r); },
      names);
}

extern template class Mamba2Block<CpuExec>;

}  // namespace v0
}  // namespace ashlar
