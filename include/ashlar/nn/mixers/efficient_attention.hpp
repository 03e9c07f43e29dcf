// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>

#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/packed_key_values.hpp"

namespace ashlar {
inline namespace v0 {

// Packed sequences between the projections of an attention layer. What a mechanism does not read may be
// empty: a synthesizer without dot products has no q and k, only two mechanisms look at x.
struct HeadBatch {
  View<const float, 2> x;                // [T, hidden], the layer's input
  View<const float, 3> q, k;             // [T, H, D]
  View<const float, 3> v;                // [T, H, Dv]
  View<float, 3> out;                    // [T, H, Dv]; must not overlap the others
  Offsets offsets;                       // of the sequences in the tokens
  std::span<const Index> global_tokens;  // rows of x, ascending: tokens that see and are seen by all others

  // Refuses shapes that differ from each other, for a mechanism that reads q and k (or q alone, or neither).
  void check(std::string_view who, bool reads_q = true, bool reads_k = true) const {
    const auto [tokens, heads, dim] = v.shape;
    if (heads == 0) refuse(who, "v has shape ", to_string(v.shape), ", expected tokens with heads");
    expect_shape(who, "v", v, {tokens, heads, dim});
    expect_shape(who, "out", out, {tokens, heads, dim});
    if (reads_q) expect_shape(who, "q", q, {tokens, heads, q.shape[2]});
    if (reads_k) expect_shape(who, "k", k, {tokens, heads, reads_q ? q.shape[2] : k.shape[2]});
    offsets.check(who, tokens);
  }

  // One sequence alone; the global tokens are left out.
  HeadBatch sequence(Index n) const {
    const Index begin = offsets.begin(n), end = offsets.end(n, v.shape[0]);
    auto rows = [&](const auto& view) { return view ? view.slice(0, begin, end) : view; };
    return {rows(x), rows(q), rows(k), rows(v), rows(out)};
  }
};

// What stands in for softmax(q k^T) v in the efficient attentions that Long Range Arena (Tay et al., 2021)
// compares: whole sequences at once, each alone and at its own length (a padded batch's padding is left out).
// Bidirectional unless a mechanism's configuration says otherwise.
template <class Exec>
class EfficientAttention {
 public:
  virtual ~EfficientAttention() = default;
  // heads.out from the rest.
  virtual void operator()(const HeadBatch& heads, Exec& exec) const = 0;
};

// heads.out = softmax(q k^T) v under one pattern for all of its sequences.
template <class Exec>
void attend(const HeadBatch& heads, const AttentionPattern& pattern, Exec& exec) {
  const PackedKeyValues<Exec> sequences(heads.k, heads.v, heads.offsets, exec);
  softmax_attention(SoftmaxAttention{heads.q, heads.offsets, sequences, heads.out, pattern}, exec);
}

struct ProjectedAttentionConfig {
  Index hidden = 0, heads = 0, head_dim = 0;
  // Names of the projections. An empty one: there is none (q or k that nobody reads; an output without
  // projection, where heads * head_dim = hidden). The key's equal to the query's: one projection for both.
  std::string query = "to_q", key = "to_k", value = "to_v", output = "to_out";
};

// Any of them as a layer:  q, k, v = W_q x, W_k x, W_v x;  out = W_o attention(x, q, k, v)
// with biases where the checkpoint has them. Whole sequences: a batch with states is refused.
template <class Exec>
class ProjectedAttention final : public Mixer<Exec> {
 public:
  ProjectedAttention(const ParameterReader<Exec>& r, const ProjectedAttentionConfig& c,
                     std::unique_ptr<const EfficientAttention<Exec>> attention)
      : c_(c), attention_(std::move(attention)) {
    const Index inner = c.heads * c.head_dim;
    if (!attention_) refuse("ProjectedAttention", "there is no attention, expected one");
    if (c.value.empty()) refuse("ProjectedAttention", "the value projection has no name, expected one");
    if (c.output.empty() && inner != c.hidden)
      refuse("ProjectedAttention", "there is no output projection from ", inner, " channels to ", c.hidden,
             ", expected one or as many channels");
    auto linear = [&](const std::string& name, Index in, Index out) {
      return name.empty() ? Linear<Exec>() : Linear<Exec>(r, name, in, out);
    };
    q_ = linear(c.query, c.hidden, inner);
    if (c.key != c.query) k_ = linear(c.key, c.hidden, inner);
    v_ = linear(c.value, c.hidden, inner);
    o_ = linear(c.output, inner, c.hidden);
  }

  LayerState<Exec> new_state(Index) const override { return {}; }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    run({.x = x, .offsets = batch.offsets}, out, batch, exec);
  }
  // The same with global tokens: rows of x, ascending.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  std::span<const Index> global_tokens, Exec& exec) const {
    run({.x = x, .offsets = batch.offsets, .global_tokens = global_tokens}, out, batch, exec);
  }

 private:
  void run(HeadBatch heads, View<float, 2> out, const SequenceBatch<Exec>& batch, Exec& exec) const {
    if (!batch.states.empty())
      refuse("ProjectedAttention", batch.states.size(),
             " states were given, expected none: sequences are read whole");
    const Index tokens = heads.x.shape[0];
    typename Exec::Scratch scratch(exec);
    auto project = [&](const Linear<Exec>& w) -> View<float, 3> {
      if (!w) return {};
      const auto projected = scratch.floats(tokens, c_.heads * c_.head_dim);
      w(heads.x, projected, batch.phase, exec);
      return projected.split(1, c_.head_dim);
    };
    heads.q = project(q_);
    heads.k = c_.key == c_.query ? heads.q : View<const float, 3>(project(k_));
    heads.v = project(v_);
    const auto mixed = scratch.floats(tokens, c_.heads * c_.head_dim);
    heads.out = mixed.split(1, c_.head_dim);
    (*attention_)(heads, exec);
    if (o_)
      o_(mixed, out, batch.phase, exec);
    else
      Backend<Exec>::copy(mixed.split(1, c_.head_dim), out.split(1, c_.head_dim), exec);
  }

  ProjectedAttentionConfig c_;
  std::unique_ptr<const EfficientAttention<Exec>> attention_;
  Linear<Exec> q_, k_, v_, o_;
};

}  // namespace v0
}  // namespace ashlar
