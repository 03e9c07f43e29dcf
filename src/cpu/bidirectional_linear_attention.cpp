// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/bidirectional_linear_attention.hpp"

#include <algorithm>
#include <cmath>

#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/bidirectional_linear_attention.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/matmul-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

inline constexpr Index kKeyBlock = 64;

// s [features, pitch] = sum of k^T [v, 1] over `keys` rows; behind Dv + 1 columns zeros. `work` holds a block
// of k^T [features, kKeyBlock] and one of [v, 1] [kKeyBlock, pitch].
void sum_outer_products(View<const float, 2> k, View<const float, 2> v, Index keys, float* s, Index pitch,
                        float* work) {
  const Index features = k.shape[1], dv = v.shape[1];
  float *transposed = work, *values = work + features * kKeyBlock;
  std::fill_n(s, features * pitch, 0.0f);
  for (Index begin = 0; begin < keys; begin += kKeyBlock) {
    const Index count = HWY_MIN(kKeyBlock, keys - begin);
    for (Index r = 0; r < count; r += 4)
      transpose_rows<4>(k.at(begin + r), k.strides[0], HWY_MIN(Index{4}, count - r), features, transposed + r,
                        kKeyBlock);
    copy_scaled(v.at(begin), v.strides[0], count, dv, 1, values, pitch);
    for (Index r = 0; r < count; ++r) values[r * pitch + dv] = 1;
    for (Index i = 0; i < features; i += kStripRows)
      multiply_rows<true>(HWY_MIN(Index{kStripRows}, features - i), transposed + i * kKeyBlock, kKeyBlock,
                          values, pitch, count, s + i * pitch, pitch, pitch);
  }
}

// out = q s[:, :Dv] / (q s[:, Dv] + eps), `work` [kStripRows, pitch].
void read_sums(View<const float, 2> q, const float* s, Index pitch, float eps, float guard,
               View<float, 2> out, float* work) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), dv = out.shape[1];
  for (Index t = 0; t < q.shape[0]; t += kStripRows) {
    const Index rows = HWY_MIN(Index{kStripRows}, q.shape[0] - t);
    multiply_rows<false>(rows, q.at(t), q.strides[0], s, pitch, q.shape[1], work, pitch, pitch);
    for (Index r = 0; r < rows; ++r) {
      const float* row = work + r * pitch;
      const float sum = row[dv], guarded = guard > 0 && std::abs(sum) <= guard ? 2 * guard : 0;
      const auto divisor = hn::Set(d, sum + eps + guarded);
      for (Index c = 0; c < dv; c += lanes)
        store_some(hn::Div(hn::LoadU(d, row + c), divisor), d, out.at(t + r, c), dv - c);
    }
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
HWY_EXPORT(sum_outer_products);
HWY_EXPORT(read_sums);
}  // namespace kernels
namespace {

constexpr std::string_view kOp = "bidirectional_linear_attention";
// Fixed, so that sums do not depend on threads. Columns of S in multiples of the longest vector.
constexpr Index kPartKeys = 512, kTileQueries = 96, kColumnUnit = 16, kBlock = 64, kStrip = 6;

// A part of a sequence: `index`-th of its keys or queries.
struct Part {
  Index sequence, index;
};

void check(const BidirectionalLinearAttention& a) {
  const auto [tokens, heads, features] = a.q.shape;
  const Index kv_heads = a.k.shape[1], dv = a.v.shape[2];
  if (heads == 0 || features == 0 || dv == 0)
    refuse(kOp, "q has shape ", to_string(a.q.shape), " and v ", to_string(a.v.shape),
           ", expected heads and channels");
  if (kv_heads == 0 || heads % kv_heads != 0)
    refuse(kOp, "k has ", kv_heads, " heads, expected a divisor of the ", heads, " of q");
  expect_shape(kOp, "q", a.q, a.q.shape);
  expect_shape(kOp, "k", a.k, {tokens, kv_heads, features});
  expect_shape(kOp, "v", a.v, {tokens, kv_heads, dv});
  expect_shape(kOp, "out", a.out, {tokens, heads, dv});
  a.offsets.check(kOp, tokens);
  if (a.key_lengths.empty()) return;
  const Index sequences = a.offsets.count();
  if (static_cast<Index>(a.key_lengths.size()) != sequences)
    refuse(kOp, "there are ", a.key_lengths.size(), " key lengths, expected one for each of ", sequences,
           " sequences");
  for (Index n = 0; n < sequences; ++n) {
    const Index mine = a.key_lengths[static_cast<std::size_t>(n)],
                length = a.offsets.end(n, tokens) - a.offsets.begin(n);
    if (mine < 0 || mine > length) refuse(kOp, "key_lengths[", n, "] is ", mine, ", expected 0 to ", length);
  }
}

// Rows [begin, end) of one head.
template <class T>
View<T, 2> rows_of(const View<T, 3>& x, Index h, Index begin, Index end) {
  return {x.at(begin, h), {end - begin, x.shape[2]}, {x.strides[0], x.strides[2]}};
}

}  // namespace

void bidirectional_linear_attention(const BidirectionalLinearAttention& a, CpuExec& exec) {
  check(a);
  const Index tokens = a.q.shape[0], heads = a.q.shape[1], features = a.q.shape[2];
  const Index kv_heads = a.k.shape[1], dv = a.v.shape[2], sequences = a.offsets.count();
  const Index pitch = (dv + 1 + kColumnUnit - 1) / kColumnUnit * kColumnUnit;
  trace(exec, kOp, "sums of parts", "q", to_string(a.q.shape), " v", to_string(a.v.shape),
        " sequences=", sequences);
  if (tokens == 0) return;

  auto length = [&](Index n) { return a.offsets.end(n, tokens) - a.offsets.begin(n); };
  auto keys = [&](Index n) {
    return a.key_lengths.empty() ? length(n) : a.key_lengths[static_cast<std::size_t>(n)];
  };
  auto key_parts = [&](Index n) { return std::max<Index>(1, (keys(n) + kPartKeys - 1) / kPartKeys); };
  auto query_tiles = [&](Index n) { return (length(n) + kTileQueries - 1) / kTileQueries; };
  CpuScratch scratch(exec);
  const auto first_part = scratch.get<Index>(sequences + 1);
  Index tiles = 0;
  first_part(0) = 0;
  for (Index n = 0; n < sequences; ++n) {
    first_part(n + 1) = first_part(n) + (length(n) == 0 ? 0 : key_parts(n));
    tiles += query_tiles(n);
  }
  const auto parts = scratch.get<Part>(first_part(sequences)), queries = scratch.get<Part>(tiles);
  for (Index n = 0, p = 0, t = 0; n < sequences; ++n) {
    for (Index i = 0; p < first_part(n + 1); ++i) parts(p++) = {n, i};
    for (Index i = 0; i < query_tiles(n); ++i) queries(t++) = {n, i};
  }

  const auto sums = scratch.floats(parts.shape[0], kv_heads, features * pitch);
  const auto work = scratch.floats(exec.threads(), std::max((features + pitch) * kBlock, kStrip * pitch));
  exec.parallel_for(parts.shape[0] * kv_heads, [&](Index task, int worker) {
    const Index p = task / kv_heads, h = task % kv_heads, n = parts(p).sequence;
    const Index begin = std::min(keys(n), parts(p).index * kPartKeys),
                end = std::min(keys(n), begin + kPartKeys);
    const Index t = a.offsets.begin(n);
    ASHLAR_DISPATCH(exec, sum_outer_products)
    (rows_of(a.k, h, t + begin, t + end), rows_of(a.v, h, t + begin, t + end), end - begin, sums.at(p, h),
     pitch, work.at(worker));
  });
  exec.parallel_for(sequences * kv_heads, [&](Index task, int) {
    const Index n = task / kv_heads, h = task % kv_heads;
    for (Index p = first_part(n) + 1; p < first_part(n + 1); ++p) {
      float* total = sums.at(first_part(n), h);
      const float* more = sums.at(p, h);
      for (Index i = 0; i < features * pitch; ++i) total[i] += more[i];
    }
  });
  exec.parallel_for(tiles * heads, [&](Index task, int worker) {
    const Part tile = queries(task / heads);
    const Index h = task % heads, n = tile.sequence;
    const Index begin = a.offsets.begin(n) + tile.index * kTileQueries,
                end = std::min(a.offsets.end(n, tokens), begin + kTileQueries);
    ASHLAR_DISPATCH(exec, read_sums)
    (rows_of(a.q, h, begin, end), sums.at(first_part(n), h / (heads / kv_heads)), pitch, a.normalizer_eps,
     a.guard, rows_of(a.out, h, begin, end), work.at(worker));
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
