// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cfloat>
#include <vector>

#include "ashlar/cuda/ops.hpp"
#include "src/core/sampling_check.hpp"
#include "src/cuda/cluster.cuh"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 1024, kFewRows = 32;
using u64 = unsigned long long;

struct RowOptions {
  double number;  // of the stream
  Index history_begin, history_end;
  float temperature, top_p, min_p, repetition_penalty;
  int top_k;  // 0: all
};
struct Chosen {
  enum Problem : std::int32_t { none, not_finite, all_masked };
  std::int32_t id;
  Problem problem;
  float logit;  // of the id
};

// f over a value of each thread of the cluster, for all of them to know.
template <class T, class F>
__device__ T over_all(T x, const Cluster& cluster, F f) {
  static_assert(kThreads == kWarp * kWarp);
  __shared__ T of_warps[kWarp], of_block;
  auto over_warp = [&] {
    for (int d = kWarp / 2; d > 0; d /= 2) x = f(x, __shfl_xor_sync(~0u, x, d));
  };
  over_warp();
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = of_warps[threadIdx.x % kWarp];
  over_warp();
  if (threadIdx.x == 0) of_block = x;
  cluster.sync();
  for (int r = 0; r < cluster.blocks; ++r)
    if (r != cluster.rank) x = f(x, *cluster.of_block(&of_block, r));
  cluster.sync();
  return x;
}

// The sum over this thread of the warp and those before it.
__device__ __forceinline__ u64 running_sum(u64 x) {
  for (int d = 1; d < kWarp; d *= 2)
    if (const u64 y = __shfl_up_sync(~0u, x, d); threadIdx.x % kWarp >= d) x += y;
  return x;
}

// Sums of 64 bits in the shared memory of a cluster's blocks, of two words whose additions the hardware has.
class Bins {
 public:
  static constexpr int kBits = 11, kCount = 1 << kBits;
  struct Place {
    int bin;
    int only;    // the token, where the bin is known to have one
    u64 before;  // the sum of the bins before
  };

  __device__ void clear() {
    for (int i = threadIdx.x; i < kCount; i += kThreads) sums_[i] = {0, 0}, tokens_[i] = 0;
    __syncthreads();
  }
  __device__ void add(int bin, u64 x) {
    const auto low = static_cast<unsigned>(x);
    const unsigned carry = atomicAdd(&sums_[bin].x, low) + low < low ? 1 : 0;
    const unsigned high = static_cast<unsigned>(x >> 32) + carry;
    if (high != 0) atomicAdd(&sums_[bin].y, high);
  }
  // That the bin has this token.
  __device__ void note(int bin, int id) {
    atomicAdd(&tokens_[bin], 1u);
    atomicExch(&last_[bin], id);
  }
  // Where the sum of the bins up to this one, of all blocks, reaches `target`, which it does somewhere.
  __device__ Place reach(u64 target, const Cluster& cluster) {
    constexpr int kEach = kCount / kThreads;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, first = threadIdx.x * kEach;
    cluster.sync();
    static_assert(kEach == 2);
    u64 mine[kEach] = {};
    for (int r = 0; r < cluster.blocks; ++r) {
      const uint4 two = *reinterpret_cast<const uint4*>(&cluster.of_block(this, r)->sums_[first]);
      mine[0] += static_cast<u64>(two.y) << 32 | two.x, mine[1] += static_cast<u64>(two.w) << 32 | two.z;
    }
    const u64 own = mine[0] + mine[1];
    const u64 in_warp = running_sum(own);
    if (lane == kWarp - 1) of_warps_[warp] = in_warp;
    __syncthreads();
    const u64 warps = running_sum(of_warps_[lane]);
    const u64 warps_before = __shfl_sync(~0u, warps, warp > 0 ? warp - 1 : 0);
    u64 before = (warp > 0 ? warps_before : 0) + in_warp - own;
    for (int j = 0; j < kEach; before += mine[j++])
      if (before < target && target - before <= mine[j])
        found_ = {first + j, only_token(first + j, cluster), before};
    cluster.sync();
    return found_;
  }

 private:
  // -1: several, or not noted.
  __device__ int only_token(int bin, const Cluster& cluster) {
    unsigned tokens = 0;
    int token = -1;
    for (int r = 0; r < cluster.blocks; ++r) {
      const Bins& there = *cluster.of_block(this, r);
      if (there.tokens_[bin] == 0) continue;
      tokens += there.tokens_[bin], token = there.last_[bin];
    }
    return tokens == 1 ? token : -1;
  }

  alignas(16) uint2 sums_[kCount];
  unsigned tokens_[kCount];
  int last_[kCount];
  u64 of_warps_[kWarp];
  Place found_;
};

// The logits of a sequence, which a cluster goes over.
struct Row {
  const float* logits;
  int count;
  Cluster cluster;

  // Ascends as the order does in which tokens are looked at: from the largest logit, of equals from the
  // lowest id, which is the lower half.
  __device__ static u64 key(int id, float x) {
    const unsigned bits = __float_as_uint(x + 0.0f);  // one zero
    const unsigned ascending = bits ^ (bits >> 31 ? ~0u : 0x80000000u);
    return static_cast<u64>(~ascending) << 32 | static_cast<unsigned>(id);
  }
  __device__ u64 key(int id) const { return key(id, logits[id]); }
  __device__ int id_bits() const { return 32 - __clz(count - 1); }

  // f(id, logit) for each, by all threads.
  template <class F>
  __device__ void each(F&& f) const {
    constexpr int kAtOnce = 8;
    const auto n = static_cast<unsigned>(count), step = static_cast<unsigned>(cluster.blocks * kThreads);
    for (unsigned from = cluster.rank * kThreads + threadIdx.x; from < n; from += kAtOnce * step) {
      float x[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) x[j] = from + j * step < n ? logits[from + j * step] : 0;
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j)
        if (from + j * step < n) f(static_cast<int>(from + j * step), x[j]);
    }
  }

  template <class Measure>
  __device__ u64 sum(const Measure& measure) const {
    u64 total = 0;
    each([&](int i, float x) { total += measure(i, x); });
    return over_all(total, cluster, [](u64 a, u64 b) { return a + b; });
  }

  // The token with which the running sum of the measure reaches `target`, from 1 to the whole sum, in the
  // order that order(id, logit) ascends, whose lower half is the id. Digit by digit of the lower `width`
  // bits: the sums of bins, then on inside the bin that has it, until that has one token.
  template <class Order, class Measure>
  __device__ int reach(u64 target, const Order& order, int width, const Measure& measure, Bins& bins) const {
    u64 begin = 0;
    for (bool whole = true;; whole = false) {
      const int shift = max(width - Bins::kBits, width > 32 ? 32 : 0);
      bins.clear();
      each([&](int i, float x) {
        const u64 at = order(i, x) - begin;
        if (!whole && at >> width != 0) return;
        if (const u64 m = measure(i, x); m != 0) {
          const int bin = static_cast<int>(at >> shift);
          bins.add(bin, m);
          if (!whole) bins.note(bin, i);
        }
      });
      const Bins::Place found = bins.reach(target, cluster);
      target -= found.before;
      begin += static_cast<u64>(found.bin) << shift;
      if (found.only >= 0) return found.only;
      if (shift == 0) return static_cast<int>(begin);
      width = shift == 32 ? id_bits() : shift;
    }
  }
};

// Of the tokens up to a key: probability over that of the likeliest one, in fixed point, such that a row's
// sum is exact and at most 2^62; 0 where it is less than min_p.
struct Weight {
  float largest, inverse_temperature, min_p, unit;
  u64 last;

  __device__ Weight(const Row& row, float most, float temperature)
      : largest(most),
        inverse_temperature(fminf(1 / temperature, FLT_MAX)),
        min_p(0),
        unit(ldexpf(1, 62 - row.id_bits())),
        last(~u64{0}) {}
  __device__ u64 operator()(int id, float x) const {
    const float p = __expf((x - largest) * inverse_temperature);
    return p < min_p || Row::key(id, x) > last ? 0 : __float2ull_rz(p * unit);
  }
};

// The first token with which the running sum of what the filters leave exceeds the number's part of the
// whole: in the order of keys, or of ids where top_k and top_p leave all.
__device__ int draw(const Row& row, float largest, const RowOptions& o, Bins& bins) {
  constexpr int kKeyBits = 64;
  const auto by_key = [](int id, float x) { return Row::key(id, x); };
  const auto by_id = [](int id, float) { return static_cast<u64>(id); };
  const auto one = [](int, float) { return u64{1}; };
  const bool some = o.top_k > 0 && o.top_k < row.count;
  Weight weight(row, largest, o.temperature);
  if (some) weight.last = row.key(row.reach(static_cast<u64>(o.top_k), by_key, kKeyBits, one, bins));
  if (o.top_p < 1) {
    const u64 whole = row.sum(weight);
    const auto enough = static_cast<u64>(ceil(static_cast<double>(o.top_p) * static_cast<double>(whole)));
    weight.last = row.key(row.reach(min(max(enough, u64{1}), whole), by_key, kKeyBits, weight, bins));
  }
  weight.min_p = o.min_p;
  const u64 left = row.sum(weight);
  const u64 target = min(static_cast<u64>(o.number * static_cast<double>(left)), left - 1) + 1;
  return some || o.top_p < 1 ? row.reach(target, by_key, kKeyBits, weight, bins)
                             : row.reach(target, by_id, row.id_bits(), weight, bins);
}

// Logits [V] after the penalty. Of an id that is there several times all write the same.
__device__ const float* penalise(const Row& row, const std::int32_t* history, const RowOptions& o,
                                 float* out) {
  row.each([&](int i, float x) { out[i] = x; });
  row.cluster.sync();
  const Index first = o.history_begin + row.cluster.rank * kThreads + threadIdx.x;
  for (Index i = first; i < o.history_end; i += row.cluster.blocks * kThreads) {
    const float x = row.logits[history[i]];
    out[history[i]] = x > 0 ? x / o.repetition_penalty : x * o.repetition_penalty;
  }
  row.cluster.sync();
  return out;
}

__global__ void __launch_bounds__(kThreads)
    sample_row(View<const float, 2> logits, View<float, 2> penalised, const std::int32_t* history,
               Chosen* chosen, const __grid_constant__ ArgumentList<RowOptions, kFewRows> options) {
  __shared__ Bins bins;
  let_next_start();
  wait_for_previous();
  const Cluster cluster = this_cluster();
  const Index n = blockIdx.x / cluster.blocks;
  const RowOptions o = options[n];
  Row row{logits.data + n * logits.strides[0], static_cast<int>(logits.shape[1]), cluster};
  if (o.repetition_penalty != 1)
    row.logits = penalise(row, history, o, penalised.data + n * penalised.strides[0]);

  u64 first = ~u64{0};
  int bad = row.count;
  row.each([&](int i, float logit) {
    first = min(first, Row::key(i, logit));
    if (!(logit < INFINITY)) bad = min(bad, i);
  });
  const auto least = [](auto a, auto b) { return min(a, b); };
  first = over_all(first, cluster, least), bad = over_all(bad, cluster, least);
  const int id = bad < row.count ? bad : static_cast<int>(first & 0xffffffff);
  Chosen result{id, Chosen::none, row.logits[id]};
  if (bad < row.count)
    result.problem = Chosen::not_finite;
  else if (result.logit == -INFINITY)
    result.problem = Chosen::all_masked;
  else if (o.temperature > 0)
    result.id = draw(row, result.logit, o, bins);
  if (cluster.rank == 0 && threadIdx.x == 0) chosen[n] = result;
}

// Of a cluster: as many as leave each thread some logits, and fit the device side by side.
unsigned blocks_a_row(Index rows, Index vocabulary, const CudaExec& exec) {
  unsigned blocks = 1;
  if (exec.capability() < 90) return blocks;
  while (blocks < 8 && 2 * blocks * rows <= exec.multiprocessors() && vocabulary > 4 * kThreads * blocks)
    blocks *= 2;
  return blocks;
}

// The options of all rows and, one behind the other, the histories that they look at.
struct Rows {
  std::vector<RowOptions> options;
  std::vector<std::int32_t> history;
  bool penalties = false;
};
Rows rows_of(const Sample& a) {
  Rows rows;
  for (std::size_t n = 0; n < a.samplers.size(); ++n) {
    Sampler& s = a.samplers[n];
    const SamplingOptions& o = s.options();
    const auto begin = static_cast<Index>(rows.history.size());
    if (o.repetition_penalty != 1) {
      in_row(static_cast<Index>(n), [&] { check_history(a.histories[n], s.vocab_size()); });
      rows.history.insert(rows.history.end(), a.histories[n].begin(), a.histories[n].end());
      rows.penalties = true;
    }
    rows.options.push_back({.number = o.temperature > 0 ? s.uniform() : 0,
                            .history_begin = begin,
                            .history_end = static_cast<Index>(rows.history.size()),
                            .temperature = o.temperature,
                            .top_p = o.top_p,
                            .min_p = o.min_p,
                            .repetition_penalty = o.repetition_penalty,
                            .top_k = static_cast<int>(std::min(o.top_k, s.vocab_size()))});
  }
  return rows;
}

}  // namespace
}  // namespace cuda

void sample(const Sample& a, CudaExec& exec) {
  constexpr const char* op = "sample";
  check(a);
  const auto [count, vocabulary] = a.logits.shape;
  cuda::trace(exec, op, "a row a cluster", to_string(a.logits.shape));
  std::vector<cuda::Chosen> chosen(a.ids.size());
  all_or_none(a.samplers, [&] {
    const cuda::Rows rows = cuda::rows_of(a);
    CudaScratch scratch(exec);
    const auto options = argument_list<cuda::kFewRows, cuda::RowOptions>(
        exec, op, count, scratch, [&](Index n) { return rows.options[static_cast<std::size_t>(n)]; });
    const auto history = scratch.get<std::int32_t>(rows.history.size());
    upload(exec, op, rows.history.data(), sizeof(std::int32_t) * rows.history.size(), history.data);
    const auto penalised = rows.penalties ? scratch.floats(count, vocabulary) : View<float, 2>();
    const auto result = scratch.get<cuda::Chosen>(count);
    const unsigned blocks = cuda::blocks_a_row(count, vocabulary, exec);
    launch(exec, op, cuda::sample_row,
           {.grid = static_cast<unsigned>(count) * blocks, .block = cuda::kThreads, .cluster = blocks},
           a.logits, penalised, history.data, result.data, options);
    download(exec, op, result.data, sizeof(cuda::Chosen) * chosen.size(), chosen.data());
    for (std::size_t n = 0; n < chosen.size(); ++n)
      in_row(static_cast<Index>(n), [&] {
        if (chosen[n].problem == cuda::Chosen::not_finite) refuse_logit(chosen[n].id, chosen[n].logit);
        if (chosen[n].problem == cuda::Chosen::all_masked) refuse_masked(vocabulary);
      });
  });
  for (std::size_t n = 0; n < chosen.size(); ++n) a.ids[n] = chosen[n].id;
}

}  // namespace v0
}  // namespace ashlar
