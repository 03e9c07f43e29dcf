// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/mixers/decayed_attention.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct SimpleGatedLinearAttentionConfig : DecayedAttentionConfig {
  float temperature = 16;  // of the decay
};

// Gated linear attention with a decay of each head, logsigmoid(W_gk x + b) / temperature (Yang et al., 2024;
// flash-linear-attention's simple GLA).
template <class Exec>
class SimpleGatedLinearAttention final : public DecayedAttention<Exec> {
 public:
  using Base = DecayedAttention<Exec>;

  SimpleGatedLinearAttention(const ParameterReader<Exec>& r, const SimpleGatedLinearAttentionConfig& c)
      : Base(r, c), gate_(r, "gk_proj", c.hidden, c.heads, true), temperature_(c.temperature) {}

 private:
  void recur(View<const float, 2> x, const typename Base::Qkv&, typename Base::Recurrence& args,
             const SequenceBatch<Exec>& batch, typename Exec::Scratch& scratch, Exec& exec) const override {
    const auto decay = scratch.floats(x.shape[0], this->config().heads);
    gate_(x, decay, batch.phase, exec);
    DecayGate formula{decay, {}, {}, decay, DecayFormula::log_sigmoid};
    formula.temperature = temperature_;
    decay_gate(formula, exec);
    args.g = decay;
    simple_gla(args, exec);
  }

  Linear<Exec> gate_;
  float temperature_;
};

}  // namespace v0
}  // namespace ashlar
