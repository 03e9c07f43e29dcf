// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <numeric>

#include "ashlar/nn/attention_patterns.hpp"
#include "ashlar/nn/mixers/efficient_attention.hpp"

namespace ashlar {
inline namespace v0 {

struct SparseAttentionConfig {
  std::vector<SparseFactor> factors;
  // Each head sees what any factor sees. Otherwise heads are split evenly: the first H / n have the first of
  // n factors, and so on. One factor a layer, in turn, is the paper's interleaved form.
  bool merged = false;
  // The first token sees all, and all see it; patterns count from the second (Long Range Arena).
  bool cls_token = false;

  // local s and strided s; s about the root of the sequence's length.
  static SparseAttentionConfig strided(Index s) {
    return {{{SparseFactor::local, s}, {SparseFactor::strided, s}}};
  }
  // fixed_block b and fixed_columns b, c.
  static SparseAttentionConfig fixed(Index b, Index c) {
    return {{{SparseFactor::fixed_block, b}, {SparseFactor::fixed_columns, b, c}}};
  }
  // Long Range Arena's: merged, with the blocks' first columns (b = 128, c = 32 there).
  static SparseAttentionConfig released(Index b, Index c, bool cls_token) {
    return {{{SparseFactor::fixed_block, b}, {SparseFactor::fixed_columns, b, c, true}}, true, cls_token};
  }
};

// Factorised softmax attention of the Sparse Transformer (Child et al., 2019), causal; O(T sqrt(T)) when
// sizes are about sqrt(T). Refused: what sparse_pattern refuses, heads that the factors do not divide.
template <class Exec>
class SparseAttention final : public EfficientAttention<Exec> {
 public:
  explicit SparseAttention(const SparseAttentionConfig& c) : c_(c) {
    const Index count = static_cast<Index>(c.factors.size());
    for (Index part = 0; part < (c.merged ? 1 : count); ++part) sparse_pattern(factors(part), 0, 0);
    if (count == 0) refuse("SparseAttention", "there are no factors, expected one or more");
    if (c.cls_token)
      for (const SparseFactor& f : c.factors) cycle_ = std::lcm(cycle_, f.size);
  }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    heads.check("SparseAttention");
    const Index parts = c_.merged ? 1 : static_cast<Index>(c_.factors.size()), count = heads.v.shape[1];
    if (count % parts != 0)
      refuse("SparseAttention", "there are ", count, " heads, expected a multiple of the ", parts,
             " factors");
    for (Index part = 0; part < parts; ++part) {
      const Index begin = part * (count / parts), end = (part + 1) * (count / parts);
      HeadBatch mine = heads;
      mine.q = heads.q.slice(1, begin, end), mine.k = heads.k.slice(1, begin, end);
      mine.v = heads.v.slice(1, begin, end), mine.out = heads.out.slice(1, begin, end);
      attend_part(mine, factors(part), exec);
    }
  }

 private:
  std::span<const SparseFactor> factors(Index part) const {
    const std::span<const SparseFactor> all = c_.factors;
    return c_.merged ? all : all.subspan(static_cast<std::size_t>(part), 1);
  }

  void attend_part(const HeadBatch& heads, std::span<const SparseFactor> factors, Exec& exec) const {
    // Listed columns end with the sequence that they are of: one call each.
    const bool listed =
        c_.cls_token || std::any_of(factors.begin(), factors.end(), [](const SparseFactor& f) {
          return f.kind == SparseFactor::fixed_columns;
        });
    if (!listed) return attend(heads, sparse_pattern(factors, 0, 0).pattern(), exec);
    for (Index n = 0; n < heads.offsets.count(); ++n) {
      const HeadBatch one = heads.sequence(n);
      const Index tokens = one.v.shape[0];
      if (!c_.cls_token)
        attend(one, sparse_pattern(factors, 0, tokens).pattern(), exec);
      else if (tokens > 0)
        attend_behind_cls(one, factors, exec);
    }
  }

  // The first token stands at the end of a cycle of the patterns, so that the second begins one.
  void attend_behind_cls(const HeadBatch& one, std::span<const SparseFactor> factors, Exec& exec) const {
    const Index tokens = one.v.shape[0], cls = cycle_ - 1;
    PatternTables tables = sparse_pattern(factors, cls + 1, cls + tokens);
    tables.global_keys.insert(tables.global_keys.begin(), cls);
    KeyValue keys{one.k, one.v};
    const SoftmaxAttention first{one.q.slice(0, 0, 1), {}, {&keys, 1}, one.out.slice(0, 0, 1)};
    softmax_attention(first, exec);
    keys.start = cls;
    const SoftmaxAttention rest{
        one.q.slice(0, 1, tokens), {}, {&keys, 1}, one.out.slice(0, 1, tokens), tables.pattern()};
    if (tokens > 1) softmax_attention(rest, exec);
  }

  SparseAttentionConfig c_;
  Index cycle_ = 1;
};

}  // namespace v0
}  // namespace ashlar
