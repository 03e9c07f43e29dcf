// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/lsh.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/cpu/dispatch.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// Buckets of sequence n, or the reason why there are none.
Index buckets_of(const LshSort& a, Index n) {
  const Index length = a.offsets.end(n, a.rotated.shape[0]) - a.offsets.begin(n), width = a.rotated.shape[3];
  if (a.bucket_size == 0) return 2 * width;
  if (length % (2 * a.bucket_size) != 0 || length / a.bucket_size > 2 * width)
    refuse("lsh_sort", "sequence ", n, " has ", length, " tokens, expected a multiple of ", 2 * a.bucket_size,
           ", at most ", 2 * width * a.bucket_size);
  return length / a.bucket_size;
}

Index hash(const float* r, Index half) {
  Index best = 0;
  float most = -std::numeric_limits<float>::infinity();
  for (Index i = 0; i < half; ++i)
    if (r[i] > most) most = r[i], best = i;
  for (Index i = 0; i < half; ++i)
    if (-r[i] > most) most = -r[i], best = half + i;
  return best;
}

}  // namespace

void lsh_sort(const LshSort& a, CpuExec& exec) {
  constexpr std::string_view kOp = "lsh_sort";
  const Index tokens = a.rotated.shape[0], heads = a.rotated.shape[1], rounds = a.rotated.shape[2],
              width = a.rotated.shape[3];
  expect_shape(kOp, "rotated", a.rotated, a.rotated.shape);
  if (rounds < 1 || width < 1 || a.bucket_size < 0)
    refuse(kOp, "rotated has shape ", to_string(a.rotated.shape), " and bucket_size is ", a.bucket_size,
           ", expected rounds of rotations, and 0 or more");
  expect_shape(kOp, "order", a.order, {rounds, tokens, heads});
  expect_shape(kOp, "place", a.place, {rounds, tokens, heads});
  if (a.buckets) expect_shape(kOp, "buckets", a.buckets, {rounds, tokens, heads});
  a.offsets.check(kOp, tokens);
  for (Index n = 0; n < a.offsets.count(); ++n) buckets_of(a, n);
  trace(exec, kOp, "counting sort", to_string(a.rotated.shape));

  CpuScratch scratch(exec);
  const auto starts_memory = scratch.get<Index>(exec.threads(), 2 * width + 1);
  const auto bucket_memory = scratch.get<Index>(exec.threads(), tokens);
  exec.parallel_for(a.offsets.count() * heads * rounds, [&](Index task, int worker) {
    const Index r = task % rounds, h = task / rounds % heads, n = task / rounds / heads;
    const Index begin = a.offsets.begin(n), end = a.offsets.end(n, tokens), count = buckets_of(a, n);
    Index *starts = starts_memory.at(worker), *bucket = bucket_memory.at(worker);
    std::fill_n(starts, count + 1, Index{0});
    for (Index t = begin; t < end; ++t) {
      bucket[t] = hash(a.rotated.at(t, h, r), count / 2);
      ++starts[bucket[t] + 1];
      if (a.buckets) a.buckets(r, t, h) = bucket[t];
    }
    for (Index b = 0; b < count; ++b) starts[b + 1] += starts[b];
    for (Index t = begin; t < end; ++t) {
      const Index at = begin + starts[bucket[t]]++;
      a.order(r, at, h) = t, a.place(r, t, h) = at;
    }
  });
}

void lsh_bias(const LshBias& a, CpuExec& exec) {
  constexpr std::string_view kOp = "lsh_bias";
  const Index rounds = a.order.shape[0], tokens = a.order.shape[1], heads = a.order.shape[2], m = a.chunk;
  expect_shape(kOp, "order", a.order, a.order.shape);
  expect_shape(kOp, "place", a.place, a.order.shape);
  if (m < 1) refuse(kOp, "chunk is ", m, ", expected 1 or more");
  if (a.round < 0 || a.round >= rounds) refuse(kOp, "round is ", a.round, ", expected 0 to ", rounds - 1);
  a.offsets.check(kOp, tokens);
  for (Index n = 0; n < a.offsets.count(); ++n)
    if (const Index length = a.offsets.end(n, tokens) - a.offsets.begin(n); length % m != 0)
      refuse(kOp, "sequence ", n, " has ", length, " tokens, expected a multiple of ", m);
  expect_shape(kOp, "out", a.out, {tokens / m, heads, m, 2 * m});
  trace(exec, kOp, "chunks", to_string(a.out.shape));

  // A pair occurs in no round, or in up to all.
  CpuScratch scratch(exec);
  const auto logs = scratch.floats(rounds + 2);
  for (Index count = 0; count < logs.shape[0]; ++count)
    logs(count) = static_cast<float>(std::log(static_cast<double>(count) + 1e-9));
  const auto sequence_of = scratch.get<Index>(tokens / m);
  for (Index n = 0; n < a.offsets.count(); ++n)
    for (Index c = a.offsets.begin(n) / m; c < a.offsets.end(n, tokens) / m; ++c) sequence_of(c) = n;

  exec.parallel_for(tokens / m * heads, [&](Index task, int) {
    const Index c = task / heads, h = task % heads, n = sequence_of(c);
    const Index begin = a.offsets.begin(n), chunks = (a.offsets.end(n, tokens) - begin) / m;
    const bool back = c * m == begin;  // into the round before
    const Index round_before = back ? (a.round + rounds - 1) % rounds : a.round,
                before = back ? begin + (chunks - 1) * m : (c - 1) * m;
    for (Index q = 0; q < m; ++q) {
      const Index i = a.order(a.round, c * m + q, h);
      float* out = a.out.at(c, h, q);
      for (Index e = 0; e < 2 * m; ++e) {
        const Index j = e < m ? a.order(round_before, before + e, h) : a.order(a.round, c * m + e - m, h);
        out[e] = a.causal && j > i ? -std::numeric_limits<float>::infinity() : i == j ? a.self : 0.0f;
        if (!a.correct_duplicates) continue;
        Index count = 0;
        for (Index r = 0; r < rounds; ++r) {
          const Index mine = (a.place(r, i, h) - begin) / m, other = (a.place(r, j, h) - begin) / m;
          // The chunk behind the last one of all rounds is the first; of several rounds these are not one's.
          const bool next = other + 1 < chunks ? mine == other + 1 : rounds == 1 && mine == 0;
          count += (mine == other ? 1 : 0) + (next ? 1 : 0);
        }
        out[e] -= logs(count);
      }
    }
  });
}

}  // namespace v0
}  // namespace ashlar
