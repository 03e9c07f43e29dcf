// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/shift_tokens.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

struct ChannelMixConfig {
  Index hidden = 0, width = 0;
  Activation activation = Activation::relu2;
  bool receptance = false;  // RWKV-6: a gate that looks at the token before, too
};

// RWKV's MLP, channel mixing (Peng et al., 2024, 2025): with x_k, x_r the token and the one before it, mixed,
//   out = W_value activation(W_key x_k), times sigmoid(W_receptance x_r) with a receptance
// The token before is LayerState::mlp_inputs. Reads RWKV-7's keys x_k, key, value, or RWKV-6's key.mu,
// key.linear, receptance.mu, receptance.linear, value.
template <class Exec>
class ChannelMix {
 public:
  ChannelMix(const ParameterReader<Exec>& r, const ChannelMixConfig& c)
      : c_(c),
        key_(r, c.receptance ? "key.linear" : "key", c.hidden, c.width),
        value_(r, "value", c.width, c.hidden) {
    if (c.receptance) {
      receptance_ = Linear<Exec>(r, "receptance.linear", c.hidden, c.hidden);
      mu_ = r.vector(joined({r.tensor("key.mu", {c.hidden}), r.tensor("receptance.mu", {c.hidden})}));
    } else {
      mu_ = r.vector("x_k", c.hidden);
    }
  }

  InputTail<Exec> new_inputs() const { return {1, c_.hidden}; }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0], ways = c_.receptance ? 2 : 1;
    const auto mixed = scratch.floats(ways, tokens, c_.hidden);
    const auto inner = scratch.floats(tokens, c_.width);
    const View<const float, 2> mu(mu_.data(), {ways, c_.hidden});
    shift_tokens(x, constant_mix(mu, tokens), mixed, batch, &LayerState<Exec>::mlp_inputs, exec);
    key_(mixed[0], inner, batch.phase, exec);
    activate(Activate{inner, {}, inner, c_.activation}, exec);
    value_(inner, out, batch.phase, exec);
    if (!c_.receptance) return;
    const auto gate = scratch.floats(tokens, c_.hidden);
    receptance_(mixed[1], gate, batch.phase, exec);
    activate(Activate{gate, out, out, Activation::sigmoid}, exec);
  }

 private:
  ChannelMixConfig c_;
  Linear<Exec> key_, value_, receptance_;
  typename Backend<Exec>::Vector mu_;  // [M, hidden]
};

}  // namespace v0
}  // namespace ashlar
