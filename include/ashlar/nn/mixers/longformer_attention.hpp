// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "ashlar/nn/attention_patterns.hpp"
#include "ashlar/nn/mixers/efficient_attention.hpp"

namespace ashlar {
inline namespace v0 {

struct LongformerAttentionConfig {
  Index hidden = 0, heads = 0, head_dim = 0;
  Index left = 0, right = 0;  // tokens of the window on each side
  Index dilation = 1;
  bool causal = false;
  // Positions of the global tokens in every sequence that is long enough, for batches that name none.
  std::vector<Index> global_positions;
  // Projections of the global tokens' attention; all empty: there are none, and no global tokens.
  std::string query = "query_global", key = "key_global", value = "value_global";

  // w tokens on each side.
  static LongformerAttentionConfig window(Index hidden, Index heads, Index w) {
    return {hidden, heads, hidden / heads, w, w};
  }
  // Long Range Arena's window of W diagonals: the main one and the W - W / 2 - 1 below it, W / 2 above.
  static LongformerAttentionConfig released(Index hidden, Index heads, Index diagonals) {
    return {hidden, heads, hidden / heads, diagonals - diagonals / 2 - 1, diagonals / 2};
  }
};

// Longformer's attention (Beltagy et al., 2020): tokens see a window and the global tokens G, in one softmax
// over the layer's q k^T; tokens of G see all, through projections of their own of the layer's input x:
//   i not in G:  out_i = softmax(q_i k_j^T) v_j over j in G and j in i + dilation {-left..right}
//   i in G:      out_i = softmax(q'_i k'_j^T) v'_j over all j,  q', k', v' = W'_q x, W'_k x, W'_v x
// G is the batch's global_tokens, or the configuration's. O(T (left + right + |G|)).
template <class Exec>
class LongformerAttention final : public EfficientAttention<Exec> {
 public:
  LongformerAttention(const ParameterReader<Exec>& r, const LongformerAttentionConfig& c) : c_(c) {
    if (c.left < 0 || c.right < 0 || c.dilation < 1)
      refuse(kWho, "the window is ", c.left, " and ", c.right, " at dilation ", c.dilation,
             ", expected 0 or more on each side, and 1 or more");
    if (c.query.empty() && c.key.empty() && c.value.empty()) {
      if (!c.global_positions.empty()) refuse_globals();
      return;
    }
    const Index inner = c.heads * c.head_dim;
    q_ = Linear<Exec>(r, c.query, c.hidden, inner);
    k_ = Linear<Exec>(r, c.key, c.hidden, inner);
    v_ = Linear<Exec>(r, c.value, c.hidden, inner);
    check_ascending(c.global_positions);
  }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    heads.check(kWho);
    const Index tokens = heads.v.shape[0];
    const std::vector<Index> globals = global_tokens(heads);
    if (globals.empty()) return attend(heads, window({}).pattern(), exec);
    if (!q_) refuse_globals();
    expect_shape(kWho, "x", heads.x, {tokens, c_.hidden});
    expect_shape(kWho, "v", heads.v, {tokens, c_.heads, c_.head_dim});
    for (Index n = 0; n < heads.offsets.count(); ++n) {
      const Index begin = heads.offsets.begin(n), end = heads.offsets.end(n, tokens);
      std::vector<Index> mine;
      for (Index t : globals)
        if (t >= begin && t < end) mine.push_back(t - begin);
      attend(heads.sequence(n), window(mine).pattern(), exec);
    }
    attend_globally(heads, globals, exec);
  }

 private:
  static constexpr std::string_view kWho = "LongformerAttention";

  [[noreturn]] static void refuse_globals() {
    refuse(kWho, "there are global tokens, expected none without projections for them");
  }

  static void check_ascending(std::span<const Index> list) {
    AttentionPattern{.global_keys = list}.check(kWho, 1, list.empty() ? 0 : list.back() + 1);
  }

  // Global tokens' own rows are written by attend_globally.
  PatternTables window(std::span<const Index> globals) const {
    PatternTables tables = longformer_pattern(c_.left, globals, c_.dilation, c_.causal);
    tables.rule.right = c_.right;
    tables.global_queries.clear();
    return tables;
  }

  // Rows of the batch, ascending.
  std::vector<Index> global_tokens(const HeadBatch& heads) const {
    const Index tokens = heads.v.shape[0];
    std::vector<Index> rows(heads.global_tokens.begin(), heads.global_tokens.end());
    if (!rows.empty()) {
      check_ascending(rows);
      if (rows.back() >= tokens)
        refuse(kWho, "token ", rows.back(), " is global, expected rows of the ", tokens, " tokens");
      return rows;
    }
    for (Index n = 0; n < heads.offsets.count(); ++n)
      for (Index p : c_.global_positions)
        if (const Index row = heads.offsets.begin(n) + p; row < heads.offsets.end(n, tokens))
          rows.push_back(row);
    return rows;
  }

  void attend_globally(const HeadBatch& heads, std::span<const Index> globals, Exec& exec) const {
    const Index tokens = heads.v.shape[0], count = static_cast<Index>(globals.size()),
                inner = c_.heads * c_.head_dim, dim = c_.head_dim;
    typename Exec::Scratch scratch(exec);
    const auto x = scratch.floats(count, c_.hidden);
    const auto q = scratch.floats(count, inner), k = scratch.floats(tokens, inner),
               v = scratch.floats(tokens, inner), out = scratch.floats(count, inner);
    for (Index g = 0; g < count; ++g)
      Backend<Exec>::move(heads.x.slice(0, globals[g], globals[g] + 1), x.slice(0, g, g + 1));
    q_(x, q, Phase::prefill, exec);
    k_(heads.x, k, Phase::prefill, exec);
    v_(heads.x, v, Phase::prefill, exec);

    // A global token is a sequence of one query, with the keys of its own sequence up to the last that it
    // sees.
    typename Backend<Exec>::HostScratch host(exec);
    const auto starts = host.template get<Index>(count + 1);
    const auto sequences = host.template get<KeyValue>(count);
    starts(0) = 0;
    for (Index g = 0, n = 0; g < count; ++g) {
      const Index row = globals[static_cast<std::size_t>(g)];
      while (heads.offsets.end(n, tokens) <= row) ++n;
      const Index begin = heads.offsets.begin(n), end = c_.causal ? row + 1 : heads.offsets.end(n, tokens);
      sequences(g) = KeyValue{k.split(1, dim).slice(0, begin, end), v.split(1, dim).slice(0, begin, end)};
      starts(g + 1) = g + 1;
    }
    softmax_attention(
        SoftmaxAttention{q.split(1, dim),
                         std::span<const Index>(starts.data, static_cast<std::size_t>(count + 1)),
                         {sequences.data, static_cast<std::size_t>(count)},
                         out.split(1, dim)},
        exec);
    for (Index g = 0; g < count; ++g)
      Backend<Exec>::copy(out.split(1, dim).slice(0, g, g + 1),
                          heads.out.slice(0, globals[g], globals[g] + 1), exec);
  }

  LongformerAttentionConfig c_;
  Linear<Exec> q_, k_, v_;
};

}  // namespace v0
}  // namespace ashlar
