// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/moe.hpp"

#include <algorithm>

#include "src/core/op_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/moe.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// softmax(x), with the sum in vectors of this instruction set's width.
void router_softmax(const float* x, float* out, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  float most = x[0];
  for (Index i = 1; i < n; ++i) most = x[i] > most ? x[i] : most;
  const auto shift = hn::Set(d, most);
  auto total = hn::Zero(d);
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto y = exp(d, hn::Sub(hn::LoadU(d, x + i), shift));
    hn::StoreU(y, d, out + i);
    total = hn::Add(total, y);
  }
  float rest = 0;
  if (i < n) {
    store_n(exp(d, hn::Sub(load_n(d, x + i, n - i), shift)), d, out + i, n - i);
    for (Index j = i; j < n; ++j) rest += out[j];
  }
  const float scale = 1 / (sum(d, total) + rest);
  for (Index j = 0; j < n; ++j) out[j] *= scale;
}

void router_sigmoid(const float* x, float* out, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  Index i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(sigmoid(d, hn::LoadU(d, x + i)), d, out + i);
  if (i < n) store_n(sigmoid(d, load_n(d, x + i, n - i)), d, out + i, n - i);
}

// out = sum_j weights[j] rows[j] + gate shared, in this order; shared may be null or `out`.
void combine_row(const float* const* rows, const float* weights, Index count, const float* shared, float gate,
                 float* out, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    auto y = hn::Zero(d);
    for (Index j = 0; j < count; ++j) y = hn::MulAdd(hn::Set(d, weights[j]), hn::LoadU(d, rows[j] + i), y);
    if (shared) y = hn::MulAdd(hn::Set(d, gate), hn::LoadU(d, shared + i), y);
    hn::StoreU(y, d, out + i);
  }
  if (i == n) return;
  auto y = hn::Zero(d);
  for (Index j = 0; j < count; ++j) y = hn::MulAdd(hn::Set(d, weights[j]), load_n(d, rows[j] + i, n - i), y);
  if (shared) y = hn::MulAdd(hn::Set(d, gate), load_n(d, shared + i, n - i), y);
  store_n(y, d, out + i, n - i);
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
HWY_EXPORT(router_softmax);
HWY_EXPORT(router_sigmoid);
HWY_EXPORT(combine_row);
}  // namespace kernels
namespace {

// The `count` largest of n values, best first; of equal ones the lower index. A NaN is taken only for want of
// others, or where it stands among the first.
template <class Id>
void choose(const float* values, Index n, Index count, Id* chosen) {
  for (Index i = 0; i < n; ++i) {
    Index at = std::min(i, count);
    if (at == count && !(values[i] > values[chosen[count - 1]])) continue;
    if (at == count) --at;
    for (; at > 0 && values[i] > values[chosen[at - 1]]; --at) chosen[at] = chosen[at - 1];
    chosen[at] = static_cast<Id>(i);
  }
}

// Choices outside of the best groups become 0.
void keep_groups(float* choice, Index experts, Index groups, Index chosen, float* worth, std::int32_t* kept) {
  const Index size = experts / groups;
  for (Index g = 0; g < groups; ++g) {
    const float* members = choice + g * size;
    Index best[2] = {0, 0};
    const Index count = std::min<Index>(2, size);
    choose(members, size, count, best);
    worth[g] = members[best[0]] + (count == 2 ? members[best[1]] : 0);
  }
  choose(worth, groups, chosen, kept);
  for (Index g = 0; g < groups; ++g)
    if (std::find(kept, kept + chosen, static_cast<std::int32_t>(g)) == kept + chosen)
      std::fill_n(choice + g * size, size, 0.0f);
}

void route_token(const MoeRoute& a, Index t, float* score, float* choice, float* worth, std::int32_t* kept) {
  const Index experts = a.logits.shape[1], chosen = a.experts.shape[1];
  std::copy_n(score, experts, choice);
  if (a.selection_bias)
    for (Index e = 0; e < experts; ++e) choice[e] += a.selection_bias(e);
  if (a.groups > 1) keep_groups(choice, experts, a.groups, a.chosen_groups, worth, kept);
  std::int32_t* ids = a.experts.at(t);
  choose(choice, experts, chosen, ids);
  float sum = 1e-20f;
  for (Index j = 0; j < chosen; ++j) sum += score[ids[j]];
  const float scale = a.renormalize ? a.scale / sum : a.scale;
  for (Index j = 0; j < chosen; ++j) a.weights(t, j) = scale * score[ids[j]];
}

}  // namespace

void moe_route(const MoeRoute& a, CpuExec& exec) {
  check(a);
  constexpr std::string_view op = "moe_route";
  const auto [tokens, experts] = a.logits.shape;
  const Index count = experts;
  trace(exec, op, a.score == RouterScore::softmax ? "softmax" : "sigmoid", to_string(a.logits.shape));
  CpuScratch scratch(exec);
  const auto memory = scratch.floats(exec.threads(), 2 * count + a.groups);
  const auto kept = scratch.get<std::int32_t>(exec.threads(), a.groups);
  parallel_rows(exec, tokens, 4 * count, [&](Index begin, Index end, int worker) {
    float *score = memory.at(worker), *choice = score + count, *worth = choice + count;
    for (Index t = begin; t < end; ++t) {
      if (a.score == RouterScore::softmax)
        ASHLAR_DISPATCH(exec, router_softmax)(a.logits.at(t), score, count);
      else
        ASHLAR_DISPATCH(exec, router_sigmoid)(a.logits.at(t), score, count);
      route_token(a, t, score, choice, worth, kept.at(worker));
    }
  });
}

// Counting sort: a pass over the pairs to count, one to place them.
void moe_group(const MoeGroup& a, CpuExec& exec) {
  check(a);
  constexpr std::string_view op = "moe_group";
  const auto [tokens, chosen] = a.experts.shape;
  const Index experts = a.offsets.shape[0] - 1;
  trace(exec, op, "counting sort", to_string(a.experts.shape));
  CpuScratch scratch(exec);
  const auto next = scratch.get<Index>(experts + 1);
  std::fill_n(next.data, experts + 1, Index{0});
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < chosen; ++j) ++next(a.experts(t, j) + 1);
  for (Index e = 0; e < experts; ++e) next(e + 1) += next(e);
  std::copy_n(next.data, experts + 1, a.offsets.data);
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < chosen; ++j) {
      const Index row = next(a.experts(t, j))++;
      a.tokens(row) = t, a.rows(t, j) = row;
    }
}

void moe_gather(const MoeGather& a, CpuExec& exec) {
  check(a);
  constexpr std::string_view op = "moe_gather";
  const Index rows = a.tokens.shape[0], width = a.x.shape[1];
  trace(exec, op, "rows", to_string(a.out.shape));
  parallel_rows(exec, rows, width, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) std::copy_n(a.x.at(a.tokens(i)), width, a.out.at(i));
  });
}

void moe_combine(const MoeCombine& a, CpuExec& exec) {
  check(a);
  constexpr std::string_view op = "moe_combine";
  const Index tokens = a.rows.shape[0], chosen = a.rows.shape[1], dim = a.y.shape[1];
  trace(exec, op, "rows", to_string(a.y.shape));
  CpuScratch scratch(exec);
  const auto lists = scratch.get<const float*>(exec.threads(), chosen);
  parallel_rows(exec, tokens, dim * (chosen + 1), [&](Index begin, Index end, int worker) {
    const float** list = lists.at(worker);
    for (Index t = begin; t < end; ++t) {
      for (Index j = 0; j < chosen; ++j) list[j] = a.y.at(a.rows(t, j));
      float gate = 1;
      if (a.shared_gate) ASHLAR_DISPATCH(exec, router_sigmoid)(a.shared_gate.at(t), &gate, 1);
      ASHLAR_DISPATCH(exec, combine_row)
      (list, a.weights.at(t), chosen, a.shared ? a.shared.at(t) : nullptr, gate, a.out.at(t), dim);
    }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
