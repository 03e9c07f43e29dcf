// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "ashlar/cuda/ops.hpp"
#include "src/core/sampling_check.hpp"
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

// f over a value of each thread, for all of them to know.
template <class T, class F>
__device__ T over_block(T x, F f) {
  static_assert(kThreads == kWarp * kWarp);
  __shared__ T of_warps[kWarp];
  auto over_warp = [&] {
    for (int d = kWarp / 2; d > 0; d /= 2) x = f(x, __shfl_xor_sync(~0u, x, d));
  };
  over_warp();
  __syncthreads();
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = of_warps[threadIdx.x % kWarp];
  over_warp();
  return x;
}

// The sum over this thread of the warp and those before it.
__device__ __forceinline__ u64 running_sum(u64 x) {
  for (int d = 1; d < kWarp; d *= 2)
    if (const u64 y = __shfl_up_sync(~0u, x, d); threadIdx.x % kWarp >= d) x += y;
  return x;
}

// Sums of 64 bits in shared memory, of two words whose additions the hardware has.
class Bins {
 public:
  static constexpr int kBits = 11, kCount = 1 << kBits;
  struct Place {
    int bin;
    u64 before;  // the sum of the bins before
  };

  __device__ void clear() {
    for (int i = threadIdx.x; i < kCount; i += kThreads) low_[i] = high_[i] = 0;
    __syncthreads();
  }
  __device__ void add(int bin, u64 x) {
    const auto low = static_cast<unsigned>(x);
    const unsigned carry = atomicAdd(&low_[bin], low) + low < low ? 1 : 0;
    const unsigned high = static_cast<unsigned>(x >> 32) + carry;
    if (high != 0) atomicAdd(&high_[bin], high);
  }
  // Where the sum of the bins up to this one reaches `target`, which it does somewhere.
  __device__ Place reach(u64 target) {
    constexpr int kEach = kCount / kThreads;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    __syncthreads();
    u64 mine[kEach], own = 0;
    for (int j = 0; j < kEach; ++j) {
      const int bin = threadIdx.x * kEach + j;
      own += mine[j] = static_cast<u64>(high_[bin]) << 32 | low_[bin];
    }
    const u64 in_warp = running_sum(own);
    if (lane == kWarp - 1) of_warps_[warp] = in_warp;
    __syncthreads();
    const u64 warps = running_sum(of_warps_[lane]);
    const u64 warps_before = __shfl_sync(~0u, warps, warp > 0 ? warp - 1 : 0);
    u64 before = (warp > 0 ? warps_before : 0) + in_warp - own;
    for (int j = 0; j < kEach; before += mine[j++])
      if (before < target && target - before <= mine[j])
        found_ = {static_cast<int>(threadIdx.x) * kEach + j, before};
    __syncthreads();
    const Place place = found_;
    __syncthreads();
    return place;
  }

 private:
  unsigned low_[kCount], high_[kCount];
  u64 of_warps_[kWarp];
  Place found_;
};

// The logits of a sequence.
struct Row {
  const float* logits;
  int count;

  __device__ int id_bits() const { return 32 - __clz(count - 1); }
  __device__ int key_bits() const { return 32 + id_bits(); }
  // Ascends as the order does in which tokens are looked at: from the largest logit, of equals from the
  // lowest id.
  __device__ u64 key(int id, float x) const {
    const unsigned bits = __float_as_uint(x + 0.0f);  // one zero
    const unsigned ascending = bits ^ (bits >> 31 ? ~0u : 0x80000000u);
    return static_cast<u64>(~ascending) << id_bits() | static_cast<unsigned>(id);
  }
  __device__ int id_of(u64 key) const { return static_cast<int>(key & ((u64{1} << id_bits()) - 1)); }

  // f(id, logit) for each, by all threads.
  template <class F>
  __device__ void each(F&& f) const {
    constexpr int kAtOnce = 8;
    const auto n = static_cast<unsigned>(count);
    for (unsigned from = threadIdx.x; from < n; from += kAtOnce * kThreads) {
      float x[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) x[j] = from + j * kThreads < n ? logits[from + j * kThreads] : 0;
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j)
        if (from + j * kThreads < n) f(static_cast<int>(from + j * kThreads), x[j]);
    }
  }

  template <class Measure>
  __device__ u64 sum(const Measure& measure) const {
    u64 total = 0;
    each([&](int i, float x) { total += measure(i, x); });
    return over_block(total, [](u64 a, u64 b) { return a + b; });
  }

  // Where the running sum of the measure reaches `target`, from 1 to the whole sum, in the order that
  // order(id, logit) < 2^bits ascends. Digit by digit: the sums of bins, then on inside the bin that has it.
  template <class Order, class Measure>
  __device__ u64 reach(u64 target, const Order& order, int bits, const Measure& measure, Bins& bins) const {
    u64 begin = 0;
    for (int width = bits;;) {
      const int shift = max(width - Bins::kBits, 0);
      bins.clear();
      each([&](int i, float x) {
        const u64 at = order(i, x) - begin;
        if (at >> width != 0) return;
        if (const u64 m = measure(i, x); m != 0) bins.add(static_cast<int>(at >> shift), m);
      });
      const auto [bin, before] = bins.reach(target);
      target -= before;
      begin += static_cast<u64>(bin) << shift;
      if (shift == 0) return begin;
      width = shift;
    }
  }
};

// Of the tokens up to a key: probability over that of the likeliest one, in fixed point, such that a row's
// sum is exact and at most 2^62; 0 where it is less than min_p.
struct Weight {
  const Row& row;
  float temperature, largest, min_p;
  u64 last;

  __device__ u64 operator()(int id, float x) const {
    if (row.key(id, x) > last) return 0;
    const float p = expf((x - largest) / temperature);
    const float unit = __uint_as_float((127u + 62u - static_cast<unsigned>(row.id_bits())) << 23);
    return p < min_p ? 0 : __float2ull_rz(p * unit);
  }
};

// The first token with which the running sum of what the filters leave exceeds the number's part of the
// whole: in the order of keys, or of ids where top_k and top_p leave all.
__device__ int draw(const Row& row, float largest, const RowOptions& o, Bins& bins) {
  constexpr u64 kAll = ~u64{0};
  const auto by_key = [&](int id, float x) { return row.key(id, x); };
  const auto by_id = [](int id, float) { return static_cast<u64>(id); };
  const auto one = [](int, float) { return u64{1}; };
  Weight weight{row, o.temperature, largest, 0, kAll};
  if (o.top_k > 0 && o.top_k < row.count)
    weight.last = row.reach(static_cast<u64>(o.top_k), by_key, row.key_bits(), one, bins);
  if (o.top_p < 1) {
    const u64 whole = row.sum(weight);
    const auto enough = static_cast<u64>(ceil(static_cast<double>(o.top_p) * static_cast<double>(whole)));
    weight.last = row.reach(min(max(enough, u64{1}), whole), by_key, row.key_bits(), weight, bins);
  }
  weight.min_p = o.min_p;
  const u64 left = row.sum(weight);
  const u64 target = min(static_cast<u64>(o.number * static_cast<double>(left)), left - 1) + 1;
  if (weight.last == kAll) return static_cast<int>(row.reach(target, by_id, row.id_bits(), weight, bins));
  return row.id_of(row.reach(target, by_key, row.key_bits(), weight, bins));
}

// Logits [V] after the penalty. Of an id that is there several times all write the same.
__device__ const float* penalise(const float* logits, int count, const std::int32_t* history,
                                 const RowOptions& o, float* out) {
  Row{logits, count}.each([&](int i, float x) { out[i] = x; });
  __syncthreads();
  for (Index i = o.history_begin + threadIdx.x; i < o.history_end; i += kThreads) {
    const float x = logits[history[i]];
    out[history[i]] = x > 0 ? x / o.repetition_penalty : x * o.repetition_penalty;
  }
  __syncthreads();
  return out;
}

__global__ void __launch_bounds__(kThreads)
    sample_row(View<const float, 2> logits, View<float, 2> penalised, const std::int32_t* history,
               Chosen* chosen, const __grid_constant__ ArgumentList<RowOptions, kFewRows> options) {
  __shared__ Bins bins;
  let_next_start();
  wait_for_previous();
  const RowOptions o = options[blockIdx.x];
  const int count = static_cast<int>(logits.shape[1]);
  const float* x = logits.data + blockIdx.x * logits.strides[0];
  if (o.repetition_penalty != 1)
    x = penalise(x, count, history, o, penalised.data + blockIdx.x * penalised.strides[0]);

  const Row row{x, count};
  u64 first = ~u64{0};
  int bad = count;
  row.each([&](int i, float logit) {
    first = min(first, row.key(i, logit));
    if (!(logit < INFINITY)) bad = min(bad, i);
  });
  const auto least = [](auto a, auto b) { return min(a, b); };
  first = over_block(first, least), bad = over_block(bad, least);
  const int id = bad < count ? bad : row.id_of(first);
  Chosen result{id, Chosen::none, x[id]};
  if (bad < count)
    result.problem = Chosen::not_finite;
  else if (result.logit == -INFINITY)
    result.problem = Chosen::all_masked;
  else if (o.temperature > 0)
    result.id = draw(row, result.logit, o, bins);
  if (threadIdx.x == 0) chosen[blockIdx.x] = result;
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
  cuda::trace(exec, op, "a row a block", to_string(a.logits.shape));
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
    launch(exec, op, cuda::sample_row, {static_cast<unsigned>(count), cuda::kThreads}, a.logits, penalised,
           history.data, result.data, options);
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
