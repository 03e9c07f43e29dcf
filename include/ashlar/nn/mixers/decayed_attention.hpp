// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/gated_output.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/qkv_projection.hpp"
#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {

// What GLA, simple GLA and RetNet have in common; key and value heads may be fewer than query heads.
struct DecayedAttentionConfig {
  Index hidden = 0, heads = 0, kv_heads = 0, key_dim = 0, value_dim = 0;
  ConvConfig conv;                                // with silu behind it
  Activation feature_map = Activation::identity;  // of q and k
  bool output_gate = true, norm_weight = true;
  Activation gate_activation = Activation::silu;
  float norm_eps = 1e-5f;

  Index queries() const { return heads * key_dim; }
  Index keys() const { return kv_heads * key_dim; }
  Index values() const { return heads * value_dim; }
};

// Linear attention with a decay that the member of the family gives:
//   q, k, v = W x, or silu(conv(W x));  q, k <- f(q), f(k)
//   S_t = decay_t S_{t-1} + k_t v_t^T,  o_t = Dk^-1/2 S_t^T q_t
//   out = W_o (norm(o) silu(W_g x)), or W_o norm(o)
// Keys of flash-linear-attention: {q,k,v,g,o}_proj, {q,k,v}_conv1d, g_norm_swish_gate or g_norm.
template <class Exec>
class DecayedAttention : public Mixer<Exec> {
 public:
  using Recurrence = typename Backend<Exec>::LinearRecurrence;
  using Qkv = typename QkvProjection<Exec>::Outputs;

  DecayedAttention(const ParameterReader<Exec>& r, const DecayedAttentionConfig& c)
      : c_(c),
        qkv_(r, c.hidden, {c.queries(), c.keys(), c.kv_heads * c.value_dim}, c.conv,
             convolved() ? Activation::silu : c.feature_map,
             convolved() ? Activation::silu : Activation::identity),
        output_({r, "o_proj", c.values(), c.hidden},
                c.norm_weight
                    ? Norm<Exec>(r, {"g_norm_swish_gate.weight", "g_norm.weight"}, c.value_dim, c.norm_eps)
                    : Norm<Exec>(c.norm_eps),
                c.value_dim, c.output_gate ? Linear<Exec>(r, "g_proj", c.hidden, c.values()) : Linear<Exec>(),
                c.gate_activation) {}

  LayerState<Exec> new_state(Index) const final {
    LayerState<Exec> state;
    state.inputs = qkv_.new_inputs();
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.heads, c_.key_dim, c_.value_dim);
    return state;
  }

  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const final {
    typename Exec::Scratch scratch(exec);
    const auto o = scratch.floats(x.shape[0], c_.values());
    const RecurrentStates<Exec> states(batch, exec);
    const Qkv qkv = qkv_(x, batch, scratch, exec);
    if (convolved() && c_.feature_map != Activation::identity)
      for (const auto& y : {qkv.q, qkv.k}) activate(Activate{y, {}, y, c_.feature_map}, exec);
    Recurrence args{qkv.q.split(1, c_.key_dim), qkv.k.split(1, c_.key_dim), qkv.v.split(1, c_.value_dim)};
    args.out = o.split(1, c_.value_dim), args.offsets = batch.offsets, args.states = states;
    recur(x, qkv, args, batch, scratch, exec);
    output_(x, o, out, batch.phase, exec);
  }

 protected:
  const DecayedAttentionConfig& config() const { return c_; }
  // Completes the arguments with the decay, in memory of `scratch`, and runs the recurrence.
  virtual void recur(View<const float, 2> x, const Qkv& qkv, Recurrence& args,
                     const SequenceBatch<Exec>& batch, typename Exec::Scratch& scratch, Exec& exec) const = 0;

 private:
  bool convolved() const { return c_.conv.width != 0; }

  DecayedAttentionConfig c_;
  QkvProjection<Exec> qkv_;
  GatedOutput<Exec> output_;
};

}  // namespace v0
}  // namespace ashlar
