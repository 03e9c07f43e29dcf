// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "ashlar/nn/batch_key_values.hpp"
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/rope.hpp"
#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {

struct LatentAttentionConfig {
  Index hidden = 0, heads = 0;
  Index query_rank = 0;  // 0: queries are projected at once
  Index rank = 0;        // of the latent that keys and values come from
  Index nope_dim = 0, rope_dim = 0, value_dim = 0;
  bool biased = false;     // the projections into latents and the last one
  float norm_eps = 1e-6f;  // of the latents' norms
  bool output_gate = false;
  const RopeFrequencies* rope = nullptr;  // null: the part for rotation is not rotated
  RopeLayout rope_layout = RopeLayout::interleaved;
  float scale = 0;  // 0: (nope_dim + rope_dim)^-1/2
};

// Multi-head latent attention (DeepSeek-V2, 2024): a token's keys and values are functions of a short latent
// c, beside a part r for rotation that all heads share; only c and r are remembered.
//   q = W_q x, or W_qb norm(W_qa x), for each head a part u and a part for rotation
//   c, r = W_kva x;  c <- norm(c)
//   k_h = [U_h c, rope(r)], v_h = V_h c, with U_h and V_h from W_kvb
//   o_h = softmax(scale q_h k_h^T) v_h
//   out = W_o o, or W_o (o sigmoid(W_g x)) with an output gate
// Prefill forms k and v. Decode reads the remembered [c, r] themselves, for all heads once: it takes
// U_h^T u as query and V_h of what the softmax makes of c, which is the same but for rounding.
// Keys: q_proj, or q_a_proj, q_a_layernorm, q_b_proj; kv_a_proj_with_mqa, kv_a_layernorm, kv_b_proj [H (nope
// + value), rank], of each head first U_h's rows; o_proj; g_proj.
template <class Exec>
class LatentAttention final : public Mixer<Exec> {
 public:
  LatentAttention(const ParameterReader<Exec>& r, const LatentAttentionConfig& c)
      : c_(c),
        kv_a_(r, "kv_a_proj_with_mqa", c.hidden, width(), c.biased),
        kv_norm_(r, "kv_a_layernorm.weight", c.rank, c.norm_eps),
        o_(r, "o_proj", c.heads * c.value_dim, c.hidden, c.biased) {
    if (c.query_rank == 0) {
      q_ = Linear<Exec>(r, "q_proj", c.hidden, c.heads * key_dim());
    } else {
      q_a_ = Linear<Exec>(r, "q_a_proj", c.hidden, c.query_rank, c.biased);
      q_norm_ = Norm<Exec>(r, "q_a_layernorm.weight", c.query_rank, c.norm_eps);
      q_ = Linear<Exec>(r, "q_b_proj", c.query_rank, c.heads * key_dim());
    }
    if (c.output_gate) gate_ = Linear<Exec>(r, "g_proj", c.hidden, c.heads * c.value_dim);
    const Index rows = c.nope_dim + c.value_dim;
    const Parameter kv_b = r.tensor("kv_b_proj.weight", {c.heads * rows, c.rank});
    kv_b_ = r.matrix(kv_b, c.heads * rows, c.rank);
    for (Index h = 0; h < c.heads; ++h) {
      const Parameter u = slice(kv_b, h * rows, h * rows + c.nope_dim);
      const Parameter v = slice(kv_b, h * rows + c.nope_dim, (h + 1) * rows);
      absorb_keys_.push_back(Backend<Exec>::matrix(transpose(u), c.rank, c.nope_dim, false, r.exec()));
      absorb_values_.push_back(Backend<Exec>::matrix(v, c.value_dim, c.rank, false, r.exec()));
    }
    if (c.rope)
      inverse_frequencies_ = Backend<Exec>::vector(c.rope->inverse, r.exec()), factor_ = c.rope->factor;
    c_.rope = nullptr;
    if (c_.scale == 0) c_.scale = 1 / std::sqrt(static_cast<float>(key_dim()));
  }

  LayerState<Exec> new_state(Index capacity) const override {
    LayerState<Exec> state;
    state.kv = KvCache<Exec>(1, width(), capacity, {.value_dim = 0});
    return state;
  }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0];
    const auto q = scratch.floats(tokens, c_.heads * key_dim()), rows = scratch.floats(tokens, width());
    const auto attended = scratch.floats(tokens, c_.heads * c_.value_dim);
    if (q_norm_) {
      const auto latent = scratch.floats(tokens, c_.query_rank);
      q_a_(x, latent, batch.phase, exec);
      q_norm_(latent, latent, exec);
      q_(latent, q, batch.phase, exec);
    } else {
      q_(x, q, batch.phase, exec);
    }
    kv_a_(x, rows, batch.phase, exec);
    const auto latent = rows.slice(1, 0, c_.rank);
    kv_norm_(latent, latent, exec);
    rotate(q.split(1, key_dim()).slice(2, c_.nope_dim, key_dim()), batch.positions, exec);
    rotate(rows.split(1, width()).slice(2, c_.rank, width()), batch.positions, exec);

    with_kv_type(kv_type(batch), [&](auto zero) {
      const BatchKeyValues<Exec, decltype(zero)> remembered(batch, rows.split(1, width()), {}, 0, exec);
      if (batch.phase == Phase::decode)
        attend_latents(q.split(1, key_dim()), Remembered<decltype(zero)>(remembered), attended, batch, exec);
      else
        attend_expanded(q.split(1, key_dim()), Remembered<decltype(zero)>(remembered), attended, batch, exec);
    });
    if (c_.output_gate) {
      const auto gate = scratch.floats(tokens, c_.heads * c_.value_dim);
      gate_(x, gate, batch.phase, exec);
      activate(Activate{gate, attended, attended, Activation::sigmoid}, exec);
    }
    o_(attended, out, batch.phase, exec);
  }

 private:
  using Dense = typename Backend<Exec>::Dense;
  using Matrix = typename Backend<Exec>::Matrix;
  template <class Kv>
  using Remembered = std::span<const KeyValueArgs<Kv>>;  // [N], keys of [S, 1, rank + rope_dim]

  Index key_dim() const { return c_.nope_dim + c_.rope_dim; }
  Index width() const { return c_.rank + c_.rope_dim; }

  void rotate(View<float, 3> x, View<const Index, 1> positions, Exec& exec) const {
    if (inverse_frequencies_)
      rope(Rope{x, positions, inverse_frequencies_.view(), x, factor_, c_.rope_layout}, exec);
  }
  template <class Kv>
  void attend(View<const float, 3> q, View<KeyValueArgs<Kv>, 1> sequences, View<float, 3> out,
              const Offsets& offsets, Exec& exec) const {
    softmax_attention(
        SoftmaxAttentionArgs<float, Kv>{q,
                                        offsets,
                                        {sequences.data, static_cast<std::size_t>(sequences.shape[0])},
                                        out,
                                        {.causal = true},
                                        {.scale = c_.scale}},
        exec);
  }
  // out[:, h, :] = x[:, h, :] W_h^T for each head, at once.
  void each_head(View<const float, 3> x, const std::vector<Matrix>& weights, View<float, 3> out, Phase phase,
                 Exec& exec) const {
    typename Backend<Exec>::HostScratch lists(exec);
    const auto layers = lists.template get<Dense>(c_.heads);
    for (Index h = 0; h < c_.heads; ++h)
      std::construct_at(layers.at(h), Dense{{x.at(0, h), {x.shape[0], x.shape[2]}, {x.strides[0], 1}},
                                            weights[static_cast<std::size_t>(h)],
                                            {},
                                            {out.at(0, h), {out.shape[0], out.shape[2]}, {out.strides[0], 1}},
                                            phase});
    dense(std::span<const Dense>(layers.data, static_cast<std::size_t>(c_.heads)), exec);
  }

  template <class Kv>
  void attend_latents(View<const float, 3> q, Remembered<Kv> latents, View<float, 2> attended,
                      const SequenceBatch<Exec>& batch, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    typename Backend<Exec>::HostScratch lists(exec);
    const Index tokens = q.shape[0];
    const auto queries = scratch.floats(tokens, c_.heads, width()),
               read = scratch.floats(tokens, c_.heads, c_.rank);
    each_head(q.slice(2, 0, c_.nope_dim), absorb_keys_, queries.slice(2, 0, c_.rank), batch.phase, exec);
    if (c_.rope_dim != 0)
      Backend<Exec>::copy(q.slice(2, c_.nope_dim, key_dim()), queries.slice(2, c_.rank, width()), exec);
    const auto sequences = lists.template get<KeyValueArgs<Kv>>(latents.size());
    for (std::size_t n = 0; n < latents.size(); ++n) {
      std::construct_at(sequences.at(n), latents[n]);
      sequences(n).v = latents[n].k.slice(2, 0, c_.rank);
    }
    attend(queries, sequences, read, batch.offsets, exec);
    each_head(read, absorb_values_, attended.split(1, c_.value_dim), batch.phase, exec);
  }

  // The latents of all positions, as floats.
  template <class Kv>
  View<const float, 3> floats(const KeyValueArgs<Kv>& latents, KvCache<Exec>* cache,
                              typename Exec::Scratch& scratch, Exec& exec) const {
    if constexpr (std::is_same_v<Kv, float>)
      if (latents.page == 0) return latents.k;
    const auto copy = scratch.floats(cache->length(), 1, width());
    cache->template copy_keys<Kv>(0, cache->length(), copy, exec);
    return copy;
  }

  template <class Kv>
  void attend_expanded(View<const float, 3> q, Remembered<Kv> remembered, View<float, 2> attended,
                       const SequenceBatch<Exec>& batch, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    typename Backend<Exec>::HostScratch lists(exec);
    const Index count = batch.offsets.count(), head = c_.nope_dim + c_.value_dim;
    const auto keys = lists.template get<View<const float, 3>>(count);
    Index total = 0;
    for (Index n = 0; n < count; ++n) {
      const auto i = static_cast<std::size_t>(n);
      std::construct_at(
          keys.at(n),
          floats(remembered[i], batch.states.empty() ? nullptr : &batch.states[i]->kv, scratch, exec));
      total += keys(n).shape[0];
    }
    const auto expanded = scratch.floats(total, c_.heads * head);
    const auto k = scratch.floats(total, c_.heads, key_dim());
    const auto layers = lists.template get<Dense>(count);
    const auto sequences = lists.template get<KeyValue>(count);
    Index begin = 0;
    for (Index n = 0; n < count; ++n) {
      const View<const float, 3>& latents = keys(n);
      const Index end = begin + latents.shape[0];
      std::construct_at(layers.at(n),
                        Dense{{latents.data, {latents.shape[0], c_.rank}, {latents.strides[0], 1}},
                              kv_b_,
                              {},
                              expanded.slice(0, begin, end),
                              batch.phase});
      sequences(n) = {k.slice(0, begin, end),
                      expanded.split(1, head).slice(0, begin, end).slice(2, c_.nope_dim, head)};
      if (c_.rope_dim != 0) {  // the same for all heads
        const View<const float, 3> shared(latents.data + c_.rank, {end - begin, c_.heads, c_.rope_dim},
                                          {latents.strides[0], 0, 1});
        Backend<Exec>::copy(shared, k.slice(0, begin, end).slice(2, c_.nope_dim, key_dim()), exec);
      }
      begin = end;
    }
    dense(std::span<const Dense>(layers.data, static_cast<std::size_t>(count)), exec);
    Backend<Exec>::copy(expanded.split(1, head).slice(2, 0, c_.nope_dim), k.slice(2, 0, c_.nope_dim), exec);
    attend(q, sequences, attended.split(1, c_.value_dim), batch.offsets, exec);
  }

  LatentAttentionConfig c_;
  Linear<Exec> q_a_, q_, kv_a_, gate_;
  Norm<Exec> q_norm_, kv_norm_;
  Matrix kv_b_;
  std::vector<Matrix> absorb_keys_, absorb_values_;  // U_h^T [rank, nope_dim] and V_h [value_dim, rank]
  Linear<Exec> o_;
  typename Backend<Exec>::Vector inverse_frequencies_;
  float factor_ = 1;
};

}  // namespace v0
}  // namespace ashlar
