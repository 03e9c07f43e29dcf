// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>

#include "ashlar/nn/batch_key_values.hpp"
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/rope.hpp"
#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {

// Over what queries and keys are normalised before the rotation.
enum class QkNorm : std::uint8_t { none, projection, head };

struct AttentionConfig {
  Index hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool biased = false;
  QkNorm qk_norm = QkNorm::none;
  float norm_eps = 1e-6f;
  const RopeFrequencies* rope = nullptr;  // null: no position encoding
  Index window = 0;                       // 0: every earlier token is visible
  float norm_weight_offset = 0;           // 1: zero-centred norms of queries and keys
  bool output_gate = false;               // W_q has rows of a gate behind each head's
  std::optional<bool> output_biased;      // of o_proj, where it is not as `biased`
  float scale = 0, soft_cap = 0;          // of the scores (AttentionScore)
  bool sinks = false;                     // a score for no key in each head
};

// Causal softmax attention with grouped heads:
//   q, k, v = W_q x, W_k x, W_v x;  q, k <- norm(q), norm(k);  q, k <- rope(q), rope(k)
//   out = W_o softmax(q k^T) v
// With an output gate (Qwen3-Next) W_q x is q and z for each head, and out = W_o (softmax(q k^T) v
// sigmoid(z)). With sinks (gpt-oss) a head's probabilities are e^s / (e^sink + sum e^s). A rotation of fewer
// frequencies than head_dim / 2 leaves a head's last channels as they are.
template <class Exec>
class Attention final : public Mixer<Exec> {
 public:
  Attention(const ParameterReader<Exec>& r, const AttentionConfig& c)
      : config_(c),
        q_(r, "q_proj", c.hidden, c.heads * c.head_dim * (c.output_gate ? 2 : 1), c.biased),
        k_(r, "k_proj", c.hidden, c.kv_heads * c.head_dim, c.biased),
        v_(r, "v_proj", c.hidden, c.kv_heads * c.head_dim, c.biased),
        o_(r, {"o_proj", "out_proj"}, c.heads * c.head_dim, c.hidden, c.output_biased.value_or(c.biased)) {
    if (c.output_gate && c.qk_norm == QkNorm::projection)
      refuse("Attention", "an output gate and norms over whole projections, expected norms of heads or none");
    if (c.qk_norm != QkNorm::none) {
      const Index over = c.qk_norm == QkNorm::projection ? c.head_dim : 0;
      auto norm = [&](const Names& names, Index heads) {
        return Norm<Exec>(r, names, over != 0 ? heads * over : c.head_dim, c.norm_eps, c.norm_weight_offset);
      };
      q_norm_ = norm({"q_norm.weight", "q_layernorm.weight"}, c.heads);
      k_norm_ = norm({"k_norm.weight", "k_layernorm.weight"}, c.kv_heads);
    }
    if (c.sinks) sinks_ = r.vector("sinks", c.heads);
    if (c.rope)
      inverse_frequencies_ = Backend<Exec>::vector(c.rope->inverse, r.exec()), factor_ = c.rope->factor;
    config_.rope = nullptr;
  }

  LayerState<Exec> new_state(Index capacity) const override {
    LayerState<Exec> state;
    state.kv = KvCache<Exec>(config_.kv_heads, config_.head_dim, capacity, {.window = config_.window});
    return state;
  }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    const Index heads = config_.heads, kv_heads = config_.kv_heads, dim = config_.head_dim;
    const Index stride = config_.output_gate ? 2 * dim : dim;  // of a head's rows in W_q x
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto projected = scratch.floats(tokens, heads * stride),
               attended = scratch.floats(tokens, heads * dim);
    const auto k = scratch.floats(tokens, kv_heads * dim), v = scratch.floats(tokens, kv_heads * dim);
    const auto q = projected.split(1, stride).slice(2, 0, dim);
    const typename Backend<Exec>::Dense layers[] = {q_.layer(x, projected, batch.phase),
                                                    k_.layer(x, k, batch.phase), v_.layer(x, v, batch.phase)};
    dense(layers, exec);
    if (config_.qk_norm == QkNorm::projection) {
      q_norm_(projected, projected, exec);
      k_norm_(k, k, exec);
    } else if (config_.qk_norm == QkNorm::head) {
      q_norm_(q, q, exec);
      k_norm_(k.split(1, dim), k.split(1, dim), exec);
    }
    rotate(q, batch.positions, exec);
    rotate(k.split(1, dim), batch.positions, exec);

    with_kv_type(kv_type(batch), [&](auto zero) {
      using Kv = decltype(zero);
      const BatchKeyValues<Exec, Kv> kv(batch, k.split(1, dim), v.split(1, dim), config_.window, exec);
      softmax_attention(
          SoftmaxAttentionArgs<float, Kv>{
              q,
              batch.offsets,
              kv,
              attended.split(1, dim),
              AttentionPattern::causal_window(config_.window),
              {.scale = config_.scale, .soft_cap = config_.soft_cap, .sinks = sinks_.view()}},
          exec);
    });
    if (config_.output_gate) {
      const View<float, 2> out_heads(attended.data, {tokens * heads, dim});
      const View<const float, 2> gates(projected.data + dim, {tokens * heads, dim}, {stride, 1});
      activate(Activate{gates, out_heads, out_heads, Activation::sigmoid}, exec);
    }
    o_.finish(attended, out, batch.phase, exec);
  }

 private:
  void rotate(View<float, 3> x, View<const Index, 1> positions, Exec& exec) const {
    if (inverse_frequencies_) rope(Rope{x, positions, inverse_frequencies_.view(), x, factor_}, exec);
  }

  AttentionConfig config_;
  Linear<Exec> q_, k_, v_, o_;
  Norm<Exec> q_norm_, k_norm_;
  typename Backend<Exec>::Vector inverse_frequencies_, sinks_;
  float factor_ = 1;
};

}  // namespace v0
}  // namespace ashlar
