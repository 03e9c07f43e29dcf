// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/softmax_attention.hpp"

#include <cmath>
#include <limits>

#include "ashlar/ref/softmax_attention.hpp"
#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/softmax_attention.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/softmax_attention-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

void run_band(const AttentionTile& tile, Index left, Index right) {
  attend_tile(tile, BandPattern{left, right});
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(run_band);
}  // namespace kernels
namespace {

constexpr std::string_view kOp = "softmax_attention";
constexpr Index kEverything = Index{1} << 30;  // keys are counted in 32 bits inside

template <class Kv, class Q>
void check(const SoftmaxAttentionArgs<float, Kv, Q>& a) {
  const auto [tokens, heads, dim] = a.q.shape;
  expect_shape(kOp, "q", a.q, a.q.shape);
  a.offsets.check(kOp, tokens);
  if (heads == 0) refuse(kOp, "q has shape ", to_string(a.q.shape), ", expected heads");
  if (static_cast<Index>(a.sequences.size()) != a.offsets.count())
    refuse(kOp, "there are keys and values of ", a.sequences.size(), " sequences, expected ",
           a.offsets.count());
  if (a.sequences.empty()) return;
  const Index kv_heads = a.sequences[0].k.shape[1], value_dim = a.sequences[0].v.shape[2];
  if (kv_heads == 0 || heads % kv_heads != 0)
    refuse(kOp, "q has ", heads, " heads, expected a multiple of the ", kv_heads, " of k");
  expect_shape(kOp, "out", a.out, {tokens, heads, value_dim});
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const auto& kv = a.sequences[static_cast<std::size_t>(n)];
    const Index rows = kv.k.shape[0], queries = a.offsets.end(n, tokens) - a.offsets.begin(n);
    expect_shape(kOp, "k", kv.k, {rows, kv_heads, dim});
    expect_shape(kOp, "v", kv.v, {rows, kv_heads, value_dim});
    a.pattern.check(kOp, heads, kv.end());
    if (a.pattern.causal && queries > kv.end())
      refuse(kOp, "sequence ", n, " has ", queries, " queries and ", kv.end(),
             " keys, expected as many keys when causal");
  }
}

bool plain(const SoftmaxAttention& a) {
  const AttentionPattern& p = a.pattern;
  for (const KeyValue& kv : a.sequences)
    if (kv.start != 0 || kv.length >= 0 || kv.ring || kv.page != 0) return false;
  return p.right < 0 && (p.left < 0 || p.causal) && p.causal_block == 0 && p.prefix == 0 && p.chunk == 0 &&
         p.dilation == 1 && !p.blocks && !p.extended() && a.score.soft_cap == 0 && !a.score.alibi &&
         !a.score.relative && !a.score.bias && !a.score.sinks &&
         a.normalizer == AttentionNormalizer::softmax && a.top_k == 0 && !a.lse && !a.entropy &&
         a.q.shape[2] > 0;
}

}  // namespace

template <class Kv, class Q>
void softmax_attention(const SoftmaxAttentionArgs<float, Kv, Q>& a, CpuExec&) {
  check(a);
  ref::softmax_attention(a);
}
template void softmax_attention(const SoftmaxAttentionArgs<float, bf16>&, CpuExec&);
template void softmax_attention(const SoftmaxAttentionArgs<float, bf16, bf16>&, CpuExec&);
void merge_attention(const MergeAttention& a, CpuExec&) { ref::merge_attention(a); }

void softmax_attention(const SoftmaxAttention& a, CpuExec& exec) {
  check(a);
  if (!plain(a)) return ref::softmax_attention(a);
  const Index tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  if (tokens == 0) return;
  const Index kv_heads = a.sequences[0].k.shape[1], value_dim = a.sequences[0].v.shape[2],
              group = heads / kv_heads;
  const Index queries_a_tile = kernels::AttentionTile::queries_a_tile(group);
  const Index left = a.pattern.left >= 0 ? a.pattern.left : kEverything,
              right = a.pattern.causal ? 0 : kEverything;
  trace(exec, kOp, "tiled online softmax", "q", to_string(a.q.shape), " kv_heads=", kv_heads,
        " sequences=", a.sequences.size(), a.pattern.causal ? " causal" : " full");

  // Tiles of a sequence start at row begin / queries_a_tile + n: room for one partial tile each.
  const Index sequences = a.offsets.count();
  auto tiles_before = [&](Index n) { return a.offsets.begin(n) / queries_a_tile + n; };
  const Index tiles = tokens / queries_a_tile + sequences;
  CpuScratch scratch(exec);
  const auto work =
      scratch.floats(exec.threads(), kernels::AttentionTile::scratch_size(group, dim, value_dim));
  exec.parallel_for(tiles * kv_heads, [&](Index i, int worker) {
    // Late tiles of a causal sequence are the longest: they go first.
    const Index head = i % kv_heads, slot = tiles - 1 - i / kv_heads;
    Index n = 0;  // the last sequence whose tiles start at or before the slot
    for (Index low = 0, high = sequences; low < high;) {
      const Index middle = (low + high) / 2;
      if (tiles_before(middle) <= slot)
        n = middle, low = middle + 1;
      else
        high = middle;
    }
    const Index t = a.offsets.begin(n), queries = a.offsets.end(n, tokens) - t;
    kernels::AttentionTile tile{};
    tile.first = (slot - tiles_before(n)) * queries_a_tile;
    if (tile.first >= queries) return;
    const auto& k = a.sequences[static_cast<std::size_t>(n)].k;
    const auto& v = a.sequences[static_cast<std::size_t>(n)].v;
    tile.q = a.q.at(t, head * group), tile.k = k.at(0, head), tile.v = v.at(0, head);
    tile.out = a.out.at(t, head * group);
    tile.q_stride = a.q.strides[0], tile.q_head = a.q.strides[1];
    tile.out_stride = a.out.strides[0], tile.out_head = a.out.strides[1];
    tile.k_stride = k.strides[0], tile.v_stride = v.strides[0];
    tile.queries = std::min(queries_a_tile, queries - tile.first), tile.group = group;
    tile.keys = k.shape[0], tile.position = tile.keys - queries;
    tile.dim = dim, tile.value_dim = value_dim;
    tile.scale = a.score.scale != 0 ? a.score.scale : 1 / std::sqrt(static_cast<float>(dim));
    tile.scratch = work.at(worker);
    ASHLAR_DISPATCH(exec, run_band)(tile, left, right);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
