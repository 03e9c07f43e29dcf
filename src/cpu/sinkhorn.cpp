// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/sinkhorn.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/sinkhorn.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// r -= ln sum e^r of each row.
void normalize_rows(View<float, 2> r) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), n = r.shape[1];
  for (Index i = 0; i < r.shape[0]; ++i) {
    float* row = r.at(i);
    float most = *std::max_element(row, row + n), total = 0;
    const auto top = hn::Set(d, most);
    auto sums = hn::Zero(d);
    Index j = 0;
    for (; j + lanes <= n; j += lanes)
      sums = hn::Add(sums, exp_negative(d, hn::Sub(hn::LoadU(d, row + j), top)));
    for (; j < n; ++j) total += std::exp(row[j] - most);
    const auto lse = hn::Set(d, most + std::log(total + sum(d, sums)));
    for (j = 0; j < n; j += lanes) store_some(hn::Sub(load_some(d, row + j, n - j), lse), d, row + j, n - j);
  }
}

// r -= ln sum e^r of each column: a vector of columns at a time.
void normalize_columns(View<float, 2> r) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), n = r.shape[1];
  HWY_ALIGN float logs[HWY_MAX_BYTES / sizeof(float)];
  for (Index j = 0; j < n; j += lanes) {
    auto top = load_some(d, r.at(0, j), n - j), sums = hn::Zero(d);
    for (Index i = 1; i < r.shape[0]; ++i) top = hn::Max(top, load_some(d, r.at(i, j), n - j));
    for (Index i = 0; i < r.shape[0]; ++i)
      sums = hn::Add(sums, exp_negative(d, hn::Sub(load_some(d, r.at(i, j), n - j), top)));
    hn::Store(sums, d, logs);
    for (Index c = 0; c < lanes; ++c) logs[c] = std::log(logs[c]);
    const auto lse = hn::Add(top, hn::Load(d, logs));
    for (Index i = 0; i < r.shape[0]; ++i)
      store_some(hn::Sub(load_some(d, r.at(i, j), n - j), lse), d, r.at(i, j), n - j);
  }
}

void sinkhorn_matrix(const Sinkhorn& a, Index matrix) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), rows = a.out.shape[1], n = a.out.shape[2];
  const View<float, 2> r = a.out[matrix];
  const auto temperature = hn::Set(d, a.temperature);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < n; j += lanes)
      store_some(hn::Div(load_some(d, a.logits.at(matrix, i, j), n - j), temperature), d, r.at(i, j), n - j);
  for (Index half = 0; half < 2 * a.iterations; ++half) {
    if ((half % 2 == 0) != a.columns_first)
      normalize_rows(r);
    else
      normalize_columns(r);
  }
  const auto clip = hn::Set(d, a.clip > 0 ? a.clip : std::numeric_limits<float>::infinity());
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < n; j += lanes) {
      const auto x = load_some(d, r.at(i, j), n - j);
      const auto clamped = hn::Max(hn::Neg(clip), hn::Min(clip, x));
      store_some(exp(d, hn::IfThenElse(hn::IsNaN(x), x, clamped)), d, r.at(i, j), n - j);
    }
}

void sum_block(const SumBlocks& a, Index b, Index h) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), dim = a.out.shape[2];
  for (Index c = 0; c < dim; c += lanes) {
    auto total = hn::Zero(d);
    for (Index i = 0; i < a.block; ++i)
      total = hn::Add(total, load_some(d, a.x.at(b * a.block + i, h, c), dim - c));
    store_some(total, d, a.out.at(b, h, c), dim - c);
  }
}

void mix_block(const MixBlocks& a, Index b, Index h) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), dim = a.out.shape[2], blocks = a.x.shape[0] / a.block;
  float row = 1;
  if (a.separate_sums && a.weights) {
    row = 0;
    for (Index l = 0; l < blocks; ++l) row += a.weights(h, b, l);
  }
  for (Index i = 0; i < a.block; ++i)
    for (Index c = 0; c < dim; c += lanes) {
      auto total = hn::Zero(d);
      for (Index l = 0; l < blocks; ++l)
        total = hn::MulAdd(hn::Set(d, a.separate_sums ? row : a.weights(h, b, l)),
                           load_some(d, a.x.at(l * a.block + i, h, c), dim - c), total);
      store_some(total, d, a.out.at(b * a.block + i, h, c), dim - c);
    }
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
HWY_EXPORT(sinkhorn_matrix);
HWY_EXPORT(sum_block);
HWY_EXPORT(mix_block);
}  // namespace kernels
namespace {

Index blocks_of(std::string_view op, Index tokens, Index block) {
  if (block < 1 || tokens % block != 0)
    refuse(op, "there are ", tokens, " tokens in blocks of ", block, ", expected whole blocks");
  return tokens / block;
}

}  // namespace

void sinkhorn(const Sinkhorn& a, CpuExec& exec) {
  expect_shape("sinkhorn", "logits", a.logits, a.logits.shape);
  expect_shape("sinkhorn", "out", a.out, a.logits.shape);
  if (!(a.temperature > 0) || a.iterations < 0 || a.clip < 0)
    refuse("sinkhorn", "temperature is ", a.temperature, ", iterations ", a.iterations, ", clip ", a.clip,
           ", expected a positive temperature and 0 or more of the others");
  trace(exec, "sinkhorn", "log domain", to_string(a.out.shape), " iterations=", a.iterations);
  if (a.out.size() == 0) return;
  exec.parallel_for(a.out.shape[0], [&](Index matrix, int) {
    ASHLAR_DISPATCH(exec, sinkhorn_matrix)(a, matrix);
  });
}

void sum_blocks(const SumBlocks& a, CpuExec& exec) {
  const auto [tokens, heads, dim] = a.x.shape;
  const Index blocks = blocks_of("sum_blocks", tokens, a.block), count = blocks * heads;
  expect_shape("sum_blocks", "x", a.x, a.x.shape);
  expect_shape("sum_blocks", "out", a.out, {blocks, heads, dim});
  trace(exec, "sum_blocks", "columns", to_string(a.x.shape), " block=", a.block);
  exec.parallel_for(count, [&, heads = heads](Index task, int) {
    ASHLAR_DISPATCH(exec, sum_block)(a, task / heads, task % heads);
  });
}

void mix_blocks(const MixBlocks& a, CpuExec& exec) {
  const auto [tokens, heads, dim] = a.x.shape;
  const Index blocks = blocks_of("mix_blocks", tokens, a.block), count = blocks * heads;
  expect_shape("mix_blocks", "x", a.x, a.x.shape);
  if (!a.weights && !a.separate_sums && count != 0)
    refuse("mix_blocks", "there are no weights, expected some");
  if (a.weights) expect_shape("mix_blocks", "weights", a.weights, {heads, blocks, blocks});
  expect_shape("mix_blocks", "out", a.out, {tokens, heads, dim});
  trace(exec, "mix_blocks", "columns", to_string(a.x.shape), " block=", a.block,
        a.separate_sums ? " separate sums" : "");
  exec.parallel_for(count, [&, heads = heads](Index task, int) {
    ASHLAR_DISPATCH(exec, mix_block)(a, task / heads, task % heads);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
