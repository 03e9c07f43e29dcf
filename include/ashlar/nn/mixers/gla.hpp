// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <limits>

#include "ashlar/nn/low_rank_linear.hpp"
#include "ashlar/nn/mixers/decayed_attention.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct GatedLinearAttentionConfig : DecayedAttentionConfig {
  Index decay_rank = 16;
  float temperature = 16;                                 // of the decay
  float floor = -std::numeric_limits<float>::infinity();  // of the decay, behind the temperature
};

// Gated linear attention (Yang et al., 2024): a decay of each key channel,
//   max(logsigmoid(G_2 G_1 x + b) / temperature, floor)
template <class Exec>
class GatedLinearAttention final : public DecayedAttention<Exec> {
 public:
  using Base = DecayedAttention<Exec>;

  GatedLinearAttention(const ParameterReader<Exec>& r, const GatedLinearAttentionConfig& c)
      : Base(r, c),
        gate_(r, "gk_proj.0", "gk_proj.1", c.hidden, c.decay_rank, c.keys(), true),
        temperature_(c.temperature),
        floor_(c.floor) {}

 private:
  void recur(View<const float, 2> x, const typename Base::Qkv&, typename Base::Recurrence& args,
             const SequenceBatch<Exec>& batch, typename Exec::Scratch& scratch, Exec& exec) const override {
    const auto decay = scratch.floats(x.shape[0], this->config().keys());
    gate_(x, decay, batch.phase, exec);
    DecayGate formula{decay, {}, {}, decay, DecayFormula::log_sigmoid};
    formula.temperature = temperature_, formula.floor = floor_;
    decay_gate(formula, exec);
    args.gk = decay.split(1, this->config().key_dim);
    gla(args, exec);
  }

  LowRankLinear<Exec> gate_;
  float temperature_, floor_;
};

}  // namespace v0
}  // namespace ashlar
