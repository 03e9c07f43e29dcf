// SPDX-License-Identifier: Apache-2.0
#include "src/core/attention_check.hpp"

#include <algorithm>

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

constexpr std::string_view kOp = "softmax_attention";

bool broadcasts(Index extent, Index want) { return extent == 1 || extent == want; }

void check_score(const AttentionScore& s, Index sequences, Index heads, Index queries, Index keys) {
  if (s.soft_cap < 0) refuse(kOp, "soft_cap is ", s.soft_cap, ", expected 0 (none) or more");
  if (s.alibi) expect_shape(kOp, "alibi", s.alibi, {heads});
  if (s.sinks) expect_shape(kOp, "sinks", s.sinks, {heads});
  if (s.relative) {
    expect_shape(kOp, "relative", s.relative, s.relative.shape);
    if (!broadcasts(s.relative.shape[0], heads) || s.relative.shape[1] % 2 == 0)
      refuse(kOp, "relative has shape ", to_string(s.relative.shape), ", expected 1 or ", heads,
             " heads and an odd number of distances");
  }
  if (!s.bias) return;
  expect_shape(kOp, "bias", s.bias, s.bias.shape);
  const auto& b = s.bias.shape;
  if (!broadcasts(b[0], sequences) || !broadcasts(b[1], heads) || (b[2] != 1 && b[2] < queries) ||
      (b[3] != 1 && b[3] < keys))
    refuse(kOp, "bias has shape ", to_string(b), ", expected [", sequences, ", ", heads, ", ", queries, ", ",
           keys, "], or 1 where it is the same");
}

// The rows of positions [start, end) are inside of k and v.
template <class Kv>
void check_rows(const KeyValueArgs<Kv>& kv, Index n) {
  const Index rows = kv.k.shape[0], positions = kv.end() - kv.start;
  if (kv.start < 0 || positions < 0)
    refuse(kOp, "sequence ", n, " has the positions ", kv.start, " to ", kv.end(),
           ", expected 0 or more that do not decrease");
  if (kv.ring && kv.page != 0) refuse(kOp, "sequence ", n, " is both a ring and paged, expected one of them");
  if (kv.page < 0 || (kv.page == 0 && !kv.pages.empty()))
    refuse(kOp, "sequence ", n, " has ", kv.pages.size(), " pages of ", kv.page, " rows, expected 1 or more");
  if (kv.page == 0) {
    if (positions > rows)
      refuse(kOp, "sequence ", n, " has ", positions, " positions from ", kv.start, " on in ", rows,
             " rows, expected as many rows");
    return;
  }
  const Index pages = (positions + kv.page - 1) / kv.page;
  if (static_cast<Index>(kv.pages.size()) < pages)
    refuse(kOp, "sequence ", n, " has ", kv.pages.size(), " pages of ", kv.page, " rows, expected the ",
           pages, " of ", positions, " positions");
  for (Index p = 0; p < pages; ++p) {
    const Index page = kv.pages[static_cast<std::size_t>(p)];
    if (page < 0 || page >= rows / kv.page)
      refuse(kOp, "sequence ", n, " has page ", page, " at ", p, ", outside of the ", rows / kv.page,
             " of the pool");
  }
}

}  // namespace

template <class Kv, class Q, class Out>
void check_attention(const SoftmaxAttentionArgs<float, Kv, Q, Out>& a) {
  const auto [tokens, heads, dim] = a.q.shape;
  expect_shape(kOp, "q", a.q, a.q.shape);
  a.offsets.check(kOp, tokens);
  if (heads == 0) refuse(kOp, "q has shape ", to_string(a.q.shape), ", expected heads");
  if (static_cast<Index>(a.sequences.size()) != a.offsets.count())
    refuse(kOp, "there are keys and values of ", a.sequences.size(), " sequences, expected ",
           a.offsets.count());
  if (a.top_k < 0) refuse(kOp, "top_k is ", a.top_k, ", expected 0 (all) or more");
  if ((a.lse || a.entropy) && a.normalizer > AttentionNormalizer::softmax_plus_one)
    refuse(kOp, "lse or entropy is asked of a normaliser that is not a softmax");
  if (a.score.sinks && a.normalizer > AttentionNormalizer::softmax_plus_one)
    refuse(kOp, "sinks are given with a normaliser that is not a softmax");
  if (a.lse) expect_shape(kOp, "lse", a.lse, {tokens, heads});
  if (a.entropy) expect_shape(kOp, "entropy", a.entropy, {tokens, heads});
  if (a.sequences.empty()) return;
  const Index kv_heads = a.sequences[0].k.shape[1], value_dim = a.sequences[0].v.shape[2];
  if (kv_heads == 0 || heads % kv_heads != 0)
    refuse(kOp, "q has ", heads, " heads, expected a multiple of the ", kv_heads, " of k");
  expect_shape(kOp, "out", a.out, {tokens, heads, value_dim});
  const bool positional =
      a.pattern.causal || a.pattern.local() || a.pattern.extended() || a.score.alibi || a.score.relative;
  Index most_queries = 0, most_keys = 0;
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const auto& kv = a.sequences[static_cast<std::size_t>(n)];
    const Index queries = a.offsets.end(n, tokens) - a.offsets.begin(n);
    expect_shape(kOp, "k", kv.k, {kv.k.shape[0], kv_heads, dim});
    expect_shape(kOp, "v", kv.v, {kv.k.shape[0], kv_heads, value_dim});
    check_rows(kv, n);
    if (positional && queries > kv.end())
      refuse(kOp, "sequence ", n, " has ", queries, " queries and ", kv.end(),
             " keys, expected as many keys ", a.pattern.causal ? "when causal" : "where positions count");
    most_queries = std::max(most_queries, queries), most_keys = std::max(most_keys, kv.end());
  }
  a.pattern.check(kOp, heads, most_keys);
  check_score(a.score, a.offsets.count(), heads, most_queries, most_keys);
}

template void check_attention(const SoftmaxAttentionArgs<float>&);
template void check_attention(const SoftmaxAttentionArgs<float, bf16>&);
template void check_attention(const SoftmaxAttentionArgs<float, bf16, bf16>&);
template void check_attention(const SoftmaxAttentionArgs<float, bf16, bf16, bf16>&);
template void check_attention(const SoftmaxAttentionArgs<float, f16, f16, f16>&);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
