// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/models/hf_config.hpp"
#include "ashlar/nn/mixers/mamba2.hpp"
#include "ashlar/nn/mlp.hpp"
#include "ashlar/residual/standard.hpp"

namespace ashlar {
inline namespace v0 {

// A layer of MaTVLM (Li et al., 2025): Phi's parallel block with its attention replaced by an
// attention-shaped Mamba-2, whose C, B and x are queries, keys and values, the latter two in fewer heads.
struct MatvlmConfig {
  Index hidden = 0, intermediate = 0;
  Activation activation = Activation::gelu_tanh;
  float norm_eps = 1e-5f;
  Mamba2Config mixer;

  // Of mamba_config.json, which the authors write beside the checkpoint.
  static MatvlmConfig from(const Value& config);
};

// Keys of model.layers.<i>.
template <class Exec>
class MatvlmBlock final : public DecoderBlock<Exec> {
 public:
  MatvlmBlock(const MatvlmConfig& c, const ParameterReader<Exec>& r)
      : norm_(Norm<Exec>::layer(r, "input_layernorm", c.hidden, c.norm_eps)),
        mixer_(r.scope("mamba"), c.mixer),
        mlp_(r.scope("mlp"), "fc1", "fc2", c.hidden, c.intermediate, c.activation, true) {}

  LayerState<Exec> new_state(Index capacity) const override { return mixer_.new_state(capacity); }

  // h += Mamba2(norm(h)) + MLP(norm(h))
  void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const override {
    parallel(
        h, norm_, exec, [&](auto x, auto y) { mixer_(x, y, batch, exec); },
        [&](auto x, auto y) { mlp_(x, y, batch.phase, exec); });
  }

 private:
  Norm<Exec> norm_;
  Mamba2<Exec> mixer_;
  Mlp<Exec> mlp_;
};

// Makes a Mamba-2 layer that starts from what an attention layer knows: of in_proj's rows x are v_proj's, B
// k_proj's and C q_proj's, and out_proj is dense (or o_proj), with their biases where the layer has some. The
// rows of z and dt, and all else, stay as `ssm` has them. `attention` and `ssm` stand before the names of the
// two layers' tensors, in one checkpoint or two; in_proj and out_proj are written to `into` under their whole
// names in `ssm`, as f32. Error("InvalidShape") where the attention's widths are not the layer's.
void init_ssm_from_attention(const ParameterLookup& attention, const ParameterLookup& ssm,
                             const Mamba2Config& c, ParameterMap& into);

extern template class MatvlmBlock<CpuExec>;

}  // namespace v0
}  // namespace ashlar
