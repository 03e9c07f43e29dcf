// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/low_rank_linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/nn/shift_tokens.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"

namespace ashlar {
inline namespace v0 {

struct Rwkv6Config {
  Index hidden = 0, heads = 0, key_dim = 0, value_dim = 0;  // the latter two of a head
  Index mix_rank = 0, decay_rank = 0;
  float norm_eps = 1e-5f;
  Activation gate = Activation::silu;

  Index keys() const { return heads * key_dim; }
  Index values() const { return heads * value_dim; }
};

// RWKV-6, time mixing (Peng et al., 2024), with five data-dependent mixes of a token x and the one before it,
// x':
//   z = tanh(W_down (x + mu (x' - x)));  x_n = x + (W_n z_n + bias_n) (x' - x)  for n = r, w, k, v, g
//   r, k, v = W_r x_r, W_k x_k, W_v x_v;  decay = -exp(low_rank(x_w))
//   o_t = (S_{t-1} + diag(bonus) k_t v_t^T)^T r_t;  S_t = diag(exp(decay_t)) S_{t-1} + k_t v_t^T
//   out = W_o (group_norm(o) gate(W_g x_g))
// The token before a sequence's first is LayerState::inputs. Keys are those of flash-linear-attention.
template <class Exec>
class Rwkv6 final : public Mixer<Exec> {
 public:
  Rwkv6(const ParameterReader<Exec>& r, const Rwkv6Config& c)
      : c_(c),
        down_(r, "x_proj.0.linear", c.hidden, kMixes * c.mix_rank),
        r_(r, "r_proj.linear", c.hidden, c.keys()),
        k_(r, "k_proj.linear", c.hidden, c.keys()),
        v_(r, "v_proj.linear", c.hidden, c.values()),
        g_(r, "g_proj.linear", c.hidden, c.values()),
        o_(r, "o_proj", c.values(), c.hidden),
        w_(r, "w_proj.linear.lora.0", "w_proj.linear.lora.2", c.hidden, c.decay_rank, c.keys(), true,
           Activation::tanh),
        mu_(r.vector("x_proj.0.mu", c.hidden)),
        bonus_(r.vector(to_floats(r.tensor("bonus", {c.heads, c.key_dim})))),
        norm_(Norm<Exec>::layer(r, "g_norm", c.values(), c.norm_eps)) {
    // [hidden, 5, rank] in the checkpoint: a matrix for each mix.
    Parameter up = r.tensor("x_proj.2.weight", {c.hidden, kMixes * c.mix_rank});
    const Parameter bias = r.tensor("x_bias", {kMixes, c.hidden});
    up.shape = {c.hidden * kMixes, c.mix_rank};
    std::vector<Index> mine(static_cast<std::size_t>(c.hidden));
    for (Index n = 0; n < kMixes; ++n) {
      for (Index i = 0; i < c.hidden; ++i) mine[static_cast<std::size_t>(i)] = i * kMixes + n;
      up_[n] =
          Linear<Exec>(r, take(up, mine), c.mix_rank, c.hidden, r.vector(to_floats(slice(bias, n, n + 1))));
    }
  }

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = InputTail<Exec>(1, c_.hidden);
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.heads, c_.key_dim, c_.value_dim);
    return state;
  }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto mixed = scratch.floats(kMixes, tokens, c_.hidden);
    mix(x, mixed, batch, exec);
    const auto r = scratch.floats(tokens, c_.keys()), w = scratch.floats(tokens, c_.keys()),
               k = scratch.floats(tokens, c_.keys());
    const auto v = scratch.floats(tokens, c_.values()), g = scratch.floats(tokens, c_.values()),
               o = scratch.floats(tokens, c_.values());
    r_(mixed[0], r, batch.phase, exec);
    w_(mixed[1], w, batch.phase, exec);
    k_(mixed[2], k, batch.phase, exec);
    v_(mixed[3], v, batch.phase, exec);
    g_(mixed[4], g, batch.phase, exec);
    decay_gate(DecayGate{w, {}, {}, w, DecayFormula::exponential}, exec);

    const auto heads = o.split(1, c_.value_dim);
    const RecurrentStates<Exec> states(batch, exec);
    typename Backend<Exec>::LinearRecurrence args{r.split(1, c_.key_dim), k.split(1, c_.key_dim),
                                                  v.split(1, c_.value_dim)};
    args.out = heads, args.offsets = batch.offsets, args.states = states;
    args.gk = w.split(1, c_.key_dim), args.bonus = {bonus_.data(), {c_.heads, c_.key_dim}};
    rwkv6(args, exec);
    norm_(heads, heads, exec);
    activate(Activate{g, o, o, c_.gate}, exec);
    o_(o, out, batch.phase, exec);
  }

 private:
  static constexpr Index kMixes = 5;

  // mixed [5, T, hidden]
  void mix(View<const float, 2> x, View<float, 3> mixed, const SequenceBatch<Exec>& batch, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto first = scratch.floats(1, tokens, c_.hidden), mu = scratch.floats(kMixes, tokens, c_.hidden);
    const auto z = scratch.floats(tokens, kMixes * c_.mix_rank);
    const View<const float, 2> constant(mu_.data(), {1, c_.hidden});
    shift_tokens(x, constant_mix(constant, tokens), first, batch, &LayerState<Exec>::inputs, exec, false);
    down_(first[0], z, batch.phase, exec);
    activate(Activate{z, {}, z, Activation::tanh}, exec);
    for (Index n = 0; n < kMixes; ++n)
      up_[n](z.slice(1, n * c_.mix_rank, (n + 1) * c_.mix_rank), mu[n], batch.phase, exec);
    shift_tokens(x, View<const float, 3>(mu), mixed, batch, &LayerState<Exec>::inputs, exec);
  }

  Rwkv6Config c_;
  Linear<Exec> down_, r_, k_, v_, g_, o_;
  Linear<Exec> up_[kMixes];
  LowRankLinear<Exec> w_;
  typename Backend<Exec>::Vector mu_, bonus_;
  Norm<Exec> norm_;
};

}  // namespace v0
}  // namespace ashlar
