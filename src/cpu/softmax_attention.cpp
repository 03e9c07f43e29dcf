// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/softmax_attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "src/core/attention_check.hpp"
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
  attend_tile(tile, BandPattern{left, right}, PlainScore());
}
void run_composed(const AttentionTile& tile, const AttentionTables& tables, const AttentionScore& score) {
  attend_tile(tile, ComposedPattern{tables}, ComposedScore{score});
}
void merge_tile(const AttentionTile& tile, Index parts, Index stride) { merge_parts(tile, parts, stride); }

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
HWY_EXPORT(run_composed);
HWY_EXPORT(merge_tile);
}  // namespace kernels
namespace {

using kernels::AttentionTables;
using kernels::AttentionTile;
using kernels::KeyRange;

constexpr std::string_view kOp = "softmax_attention";

// Some queries of a sequence, and some of its keys or all of them.
struct Task {
  Index sequence, first, queries;
  KeyRange keys;       // of a part; empty: all
  Index part, parts;   // its number, how many there are; 0: not in parts
  Index part_results;  // before this task's tile
};

// A call, cut into tiles. The cut depends on a sequence's own lengths only.
template <class Kv, class Q>
class Plan {
 public:
  Plan(const SoftmaxAttentionArgs<float, Kv, Q>& a, CpuScratch& scratch) : a_(a), tables_(a.pattern) {
    tokens_ = a.q.shape[0], heads_ = a.q.shape[1];
    kv_heads_ = a.sequences[0].k.shape[1], value_dim_ = a.sequences[0].v.shape[2];
    // Heads with block lists of their own do not share tiles.
    group_ = a.pattern.blocks && a.pattern.blocks.heads > 1 ? 1 : heads_ / kv_heads_;
    tile_queries_ = AttentionTile::queries_a_tile(group_);
    if (a.pattern.blocks) tile_queries_ = std::min(tile_queries_, a.pattern.blocks.block);
    Index count = 0;
    each_task([&](const Task&) { ++count; });
    tasks_ = scratch.get<Task>(count);
    count = 0;
    each_task([&](const Task& t) { *tasks_.at(count++) = t; });
    if (count > 0) {
      const Task& last = tasks_(count - 1);
      results_ = last.part_results + last.parts;
    }
    for (Index i = 0; i < count; ++i)
      if (tasks_(i).parts > 0) part_rows_ = std::max(part_rows_, tasks_(i).queries * group_);
    parts_ = scratch.floats(results_ * head_tiles() * part_size());
  }

  Index tasks() const { return tasks_.shape[0]; }
  const Task& task(Index i) const { return tasks_(i); }
  Index head_tiles() const { return heads_ / group_; }
  Index scratch_size() const {
    Index keys = 0;
    for (const auto& kv : a_.sequences) keys = std::max(keys, kv.end() - kv.start);
    return AttentionTile::scratch_size(group_, a_.q.shape[2], value_dim_, a_.top_k > 0 ? keys : 0);
  }
  bool in_parts() const { return results_ > 0; }
  Index part_stride() const { return head_tiles() * part_size(); }

  // The tile of a task, for head tile `h`.
  AttentionTile tile(const Task& task, Index h, float* scratch) const {
    const auto& kv = a_.sequences[static_cast<std::size_t>(task.sequence)];
    const Index t = a_.offsets.begin(task.sequence), queries = a_.offsets.end(task.sequence, tokens_) - t;
    const Index head = h * group_, kv_head = head / (heads_ / kv_heads_);
    AttentionTile tile;
    tile.q = a_.q.at(t, head), tile.narrow_q = sizeof(Q) == 2;
    tile.q_stride = a_.q.strides[0], tile.q_head = a_.q.strides[1];
    tile.out = a_.out.at(t, head), tile.out_stride = a_.out.strides[0], tile.out_head = a_.out.strides[1];
    if (a_.lse)
      tile.lse = a_.lse.at(t, head), tile.lse_stride = a_.lse.strides[0], tile.lse_head = a_.lse.strides[1];
    if (a_.entropy) {
      tile.entropy = a_.entropy.at(t, head), tile.moments = true;
      tile.entropy_stride = a_.entropy.strides[0], tile.entropy_head = a_.entropy.strides[1];
    }
    tile.rows.k = kv.k.at(0, kv_head), tile.rows.v = kv.v.at(0, kv_head), tile.rows.narrow = sizeof(Kv) == 2;
    tile.rows.k_stride = kv.k.strides[0], tile.rows.v_stride = kv.v.strides[0];
    tile.rows.start = kv.start, tile.rows.end = kv.end(), tile.rows.ring = kv.ring ? kv.k.shape[0] : 0;
    tile.rows.page = kv.page, tile.rows.pages = kv.pages.data();
    tile.sequence = task.sequence, tile.head = head, tile.group = group_;
    tile.first = task.first, tile.queries = task.queries, tile.position = kv.end() - queries;
    tile.dim = a_.q.shape[2], tile.value_dim = value_dim_;
    tile.scale = a_.score.scale != 0 ? a_.score.scale
                                     : 1 / std::sqrt(static_cast<float>(std::max<Index>(1, tile.dim)));
    tile.normalizer = a_.normalizer, tile.top_k = a_.top_k;
    if (a_.score.sinks) tile.sinks = a_.score.sinks.data + head;
    if (task.parts > 0) {
      tile.part_begin = task.keys.begin, tile.part_end = task.keys.end, tile.first_part = task.part == 0;
      tile.part = parts_.at((task.part_results + task.part) * part_stride() + h * part_size());
    }
    tile.scratch = scratch;
    return tile;
  }

 private:
  Index part_size() const { return part_rows_ * AttentionTile::part_pitch(value_dim_); }

  // Late tiles of a causal sequence are the longest: they go first.
  template <class F>
  void each_task(F&& f) const {
    Index results = 0;
    for (Index n = 0; n < a_.offsets.count(); ++n) {
      const auto& kv = a_.sequences[static_cast<std::size_t>(n)];
      const Index queries = a_.offsets.end(n, tokens_) - a_.offsets.begin(n);
      if (queries == 0) continue;
      const Index position = kv.end() - queries, rows = queries * group_;
      const KeyRange seen = tables_.keys(position, position + queries - 1);
      const Index begin = std::max(seen.begin, kv.start), end = std::min(seen.end, kv.end());
      const Index part = AttentionTile::part_keys(rows);
      if (a_.top_k == 0 && queries <= tile_queries_ && end - begin > part) {
        const Index from = begin / part, parts = (end - 1) / part + 1 - from;
        for (Index p = 0; p < parts; ++p)
          f(Task{n, 0, queries, {(from + p) * part, (from + p + 1) * part}, p, parts, results});
        results += parts;
        continue;
      }
      // With block lists, tiles begin where a block of queries does.
      const Index before = a_.pattern.blocks ? position % a_.pattern.blocks.block % tile_queries_ : 0;
      for (Index tile = (before + queries - 1) / tile_queries_; tile >= 0; --tile) {
        const Index first = std::max<Index>(0, tile * tile_queries_ - before);
        const Index last = std::min(queries, (tile + 1) * tile_queries_ - before);
        f(Task{n, first, last - first, {0, 0}, 0, 0, results});
      }
    }
  }

  const SoftmaxAttentionArgs<float, Kv, Q>& a_;
  AttentionTables tables_;
  Index tokens_ = 0, heads_ = 0, kv_heads_ = 0, value_dim_ = 0, group_ = 1, tile_queries_ = 1, results_ = 0,
        part_rows_ = 0;
  View<Task, 1> tasks_;
  View<float, 1> parts_;
};

// What run_attention does with a call that was checked.
template <class Kv, class Q>
void run_tiles(const SoftmaxAttentionArgs<float, Kv, Q>& a, detail::AttentionTileFunction run,
               const void* policies, CpuExec& exec) {
  if (a.q.shape[0] == 0) return;
  CpuScratch scratch(exec);
  const Plan plan(a, scratch);
  const auto work = scratch.floats(exec.threads(), plan.scratch_size());
  const Index heads = plan.head_tiles();
  exec.parallel_for(plan.tasks() * heads, [&](Index i, int worker) {
    run(policies, plan.tile(plan.task(i / heads), i % heads, work.at(worker)));
  });
  if (!plan.in_parts()) return;
  exec.parallel_for(plan.tasks() * heads, [&](Index i, int worker) {
    const Task& task = plan.task(i / heads);
    if (task.parts == 0 || task.part != 0) return;
    const AttentionTile tile = plan.tile(task, i % heads, work.at(worker));
    ASHLAR_DISPATCH(exec, merge_tile)(tile, task.parts, plan.part_stride());
  });
}

// The policies of an AttentionPattern and an AttentionScore.
struct Builtin {
  AttentionTables tables;
  const AttentionScore& score;
  Isa isa;

  bool band() const {
    const AttentionPattern& p = tables.pattern;
    return p.causal_block == 0 && p.prefix == 0 && p.chunk == 0 && p.dilation == 1 && !p.blocks &&
           !p.extended() && score.soft_cap == 0 && !score.alibi && !score.relative && !score.bias;
  }
};

void run_builtin(const void* policies, const AttentionTile& tile) {
  const Builtin& b = *static_cast<const Builtin*>(policies);
  const AttentionPattern& p = b.tables.pattern;
  constexpr Index kEverything = (Index{1} << 30) - 1;  // keys are counted in 32 bits inside
  if (!b.band()) return ASHLAR_DISPATCH_ISA(b.isa, run_composed)(tile, b.tables, b.score);
  const Index left = p.left >= 0 ? std::min(p.left, kEverything) : kEverything;
  const Index right = p.right >= 0 ? std::min(p.right, kEverything) : kEverything;
  ASHLAR_DISPATCH_ISA(b.isa, run_band)(tile, left, p.causal ? 0 : right);
}

// Marks of the global keys, by position.
void mark_globals(AttentionTables& t, Index positions, CpuScratch& scratch) {
  const std::span<const Index> list = t.pattern.global_keys;
  if (list.empty()) return;
  const auto marks = scratch.get<std::uint8_t>(positions + AttentionTile::kKeys);
  const auto before = scratch.get<std::int32_t>(positions + 1);
  std::memset(marks.data, 0, static_cast<std::size_t>(marks.shape[0]));
  for (const Index j : list)
    if (j < positions) marks(j) = 1;
  std::int32_t count = 0;
  for (Index j = 0; j <= positions; ++j) before(j) = count, count += j < positions ? marks(j) : 0;
  t.is_global = marks.data, t.globals_before = before.data, t.positions = positions;
}

// A dilated pattern of nothing else joins only positions of one remainder: as many sequences, each with every
// dilation-th row, in which the window is plain.
template <class Kv, class Q>
bool interleaved(const SoftmaxAttentionArgs<float, Kv, Q>& a) {
  const AttentionPattern& p = a.pattern;
  for (const auto& kv : a.sequences)
    if (kv.start != 0 || kv.ring || kv.page != 0) return false;
  return p.dilation > 1 && p.chunk == 0 && p.causal_block == 0 && p.prefix == 0 && !p.blocks &&
         !p.extended() && !a.score.alibi && !a.score.relative && !a.score.bias;
}
template <class T, int Rank>
View<T, Rank> every(const View<T, Rank>& x, Index first, Index step, Index rows) {
  View<T, Rank> y = x;
  if (!x) return y;
  y.data += first * x.strides[0], y.strides[0] *= step, y.shape[0] = rows;
  return y;
}
template <class Kv, class Q>
void attend_interleaved(const SoftmaxAttentionArgs<float, Kv, Q>& a, CpuExec& exec) {
  const Index step = a.pattern.dilation;
  auto part = a;
  part.offsets = {}, part.pattern.dilation = 1;
  const Builtin builtin{AttentionTables(part.pattern), a.score, exec.isa()};
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const auto& kv = a.sequences[static_cast<std::size_t>(n)];
    const Index t = a.offsets.begin(n), queries = a.offsets.end(n, a.q.shape[0]) - t;
    const Index position = kv.end() - queries;
    for (Index i = 0; i < std::min(step, queries); ++i) {
      const Index first = (position + i) % step, keys = (kv.end() - first + step - 1) / step;
      const Index rows = (queries - i + step - 1) / step;
      const KeyValueArgs<Kv> mine{every(kv.k, first, step, keys), every(kv.v, first, step, keys)};
      part.q = every(a.q, t + i, step, rows), part.out = every(a.out, t + i, step, rows);
      part.lse = every(a.lse, t + i, step, rows), part.entropy = every(a.entropy, t + i, step, rows);
      part.sequences = {&mine, 1};
      run_tiles(part, run_builtin, &builtin, exec);
    }
  }
}

template <class Kv, class Q>
void attend(const SoftmaxAttentionArgs<float, Kv, Q>& a, CpuExec& exec) {
  detail::check_attention(a);
  CpuScratch scratch(exec);
  Builtin builtin{AttentionTables(a.pattern), a.score, exec.isa()};
  const bool interleave = interleaved(a);
  if (exec.verbose() && !a.sequences.empty())
    trace(exec, kOp,
          interleave       ? "interleaved sequences"
          : builtin.band() ? "band of keys, plain scores"
                           : "composed pattern and scores",
          "q", to_string(a.q.shape), " kv_heads=", a.sequences[0].k.shape[1],
          " sequences=", a.sequences.size(), sizeof(Kv) == 2 ? " kv=bf16" : "");
  if (interleave) return attend_interleaved(a, exec);
  Index positions = 0;
  for (const auto& kv : a.sequences) positions = std::max(positions, kv.end());
  mark_globals(builtin.tables, positions, scratch);
  run_tiles(a, run_builtin, &builtin, exec);
}

}  // namespace

namespace detail {

template <class Kv, class Q>
void run_attention(const SoftmaxAttentionArgs<float, Kv, Q>& a, AttentionTileFunction run,
                   const void* policies, CpuExec& exec) {
  check_attention(a);
  run_tiles(a, run, policies, exec);
}

template void run_attention(const SoftmaxAttentionArgs<float>&, AttentionTileFunction, const void*, CpuExec&);
template void run_attention(const SoftmaxAttentionArgs<float, bf16>&, AttentionTileFunction, const void*,
                            CpuExec&);
template void run_attention(const SoftmaxAttentionArgs<float, bf16, bf16>&, AttentionTileFunction,
                            const void*, CpuExec&);

}  // namespace detail

void softmax_attention(const SoftmaxAttention& a, CpuExec& exec) { attend(a, exec); }
template <class Kv, class Q>
void softmax_attention(const SoftmaxAttentionArgs<float, Kv, Q>& a, CpuExec& exec) {
  attend(a, exec);
}
template void softmax_attention(const SoftmaxAttentionArgs<float, bf16>&, CpuExec&);
template void softmax_attention(const SoftmaxAttentionArgs<float, bf16, bf16>&, CpuExec&);

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
