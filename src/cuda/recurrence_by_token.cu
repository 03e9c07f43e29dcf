// SPDX-License-Identifier: Apache-2.0
// The recurrence token after token, for every member of the family; one token is a step of decoding, bound by
// the memory of the state. With D the decay of a row, p = D k of a delta rule or a of a low rank, and r = D
// q, or q where it is read before the update, all that a row needs of the state are p S and r S:
//   u = beta (v - p S) or v;  S <- D S + k u + b (p S);  o = r S + (q k) u + (q b) (p S)
// so that the sums over key channels are made at once.
#include "src/cuda/recurrence.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kColumns = 4;  // of the state that a warp holds

// A lane's part of a vector over key channels: channels 4 lane + 128 i + {0, 1, 2, 3}.
template <int kParts>
struct Keys {
  float x[kParts * 4];
};

template <int kParts, bool kByFour>
__device__ __forceinline__ Keys<kParts> load_keys(const float* p, int dim) {
  Keys<kParts> keys;
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const int c = 4 * lane + 4 * kWarp * i;
    if constexpr (kByFour) {
      const auto v = c < dim ? load<4>(p + c) : Floats<4>{};
#pragma unroll
      for (int j = 0; j < 4; ++j) keys.x[4 * i + j] = v.x[j];
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) keys.x[4 * i + j] = c + j < dim ? p[c + j] : 0.0f;
    }
  }
  return keys;
}

template <int kParts, bool kByFour>
__device__ __forceinline__ void store_keys(float* p, int dim, const Keys<kParts>& keys) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const int c = 4 * lane + 4 * kWarp * i;
    if constexpr (kByFour) {
      if (c < dim) store<4>(p + c, {keys.x[4 * i], keys.x[4 * i + 1], keys.x[4 * i + 2], keys.x[4 * i + 3]});
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (c + j < dim) p[c + j] = keys.x[4 * i + j];
    }
  }
}

template <int kParts>
__device__ __forceinline__ float dot(const Keys<kParts>& x, const Keys<kParts>& y) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4 * kParts; ++i) sum = fmaf(x.x[i], y.x[i], sum);
  return sum;
}
template <int kParts>
__device__ __forceinline__ Keys<kParts> product(const Keys<kParts>& x, const Keys<kParts>& y) {
  Keys<kParts> z;
#pragma unroll
  for (int i = 0; i < 4 * kParts; ++i) z.x[i] = x.x[i] * y.x[i];
  return z;
}

// Sums over the warp of 2 kColumns values; lane l gets that of value l / 4.
__device__ __forceinline__ float sum_columns(float (&v)[2 * kColumns]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int half = kColumns; half > 0; half /= 2) {
    const bool upper = (lane & (4 * half)) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float mine = upper ? v[i + half] : v[i], other = upper ? v[i] : v[i + half];
      v[i] = mine + __shfl_xor_sync(~0u, other, 4 * half);
    }
  }
  v[0] += __shfl_xor_sync(~0u, v[0], 2);
  return v[0] + __shfl_xor_sync(~0u, v[0], 1);
}

// A warp a sequence, head and kColumns columns of the state, in registers.
template <int kParts, bool kByFour>
__global__ void __launch_bounds__(128)
    recurrent_columns(const RecurrenceCall p, const RecurrenceSequences sequences) {
  let_next_start();
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int groups = (p.columns + kColumns - 1) / kColumns;
  const int item = static_cast<int>(blockIdx.x) * (static_cast<int>(blockDim.x) / kWarp) + warp;
  const int h = item / groups, first = item % groups * kColumns, dk = p.key_dim;
  wait_for_previous();
  if (item >= p.heads * groups) return;
  const RecurrenceSequence sequence = sequences[blockIdx.y];
  const Index begin = sequence.begin * p.substeps, end = sequence.end * p.substeps;
  if (begin == end) return;
  auto keys_at = [&](const RecurrenceInput& x, Index t) {
    return load_keys<kParts, kByFour>(x.at(t, h), dk);
  };

  Keys<kParts> s[kColumns] = {};
  float* state = nullptr;
  if (sequence.state != nullptr) {
    state = sequence.state + (static_cast<Index>(h) * p.columns + first) * dk;
#pragma unroll
    for (int j = 0; j < kColumns; ++j)
      if (first + j < p.columns) s[j] = load_keys<kParts, kByFour>(state + static_cast<Index>(j) * dk, dk);
  }
  const bool delta = p.beta.data != nullptr, low_rank = p.a.data != nullptr, early = p.bonus.data != nullptr;
  const bool decays = p.g.data != nullptr, decays_channels = p.gk.data != nullptr;
  // Lane l has the value of column l / 4 % kColumns, in both halves of the warp.
  const int column = first + lane / 4 % kColumns;
  auto value_at = [&](Index row) {
    return column < p.value_dim ? p.v.at(row, h)[column] : column < p.columns ? 1.0f : 0.0f;
  };
  // What a row reads is fetched while the one before it is worked on.
  Keys<kParts> next_q = keys_at(p.q, sequence.begin), next_k = keys_at(p.k, begin);
  float next_v = value_at(begin), next_beta = delta ? *p.beta.at(begin, h) : 0.0f;
  float next_g = decays ? *p.g.at(sequence.begin, h) : 0.0f;
  Index t = sequence.begin;
  int step = 0;

  for (Index row = begin; row < end; ++row) {
    const Keys<kParts> q = next_q, k = next_k;
    const float v = next_v, beta = next_beta;
    const bool last = step + 1 == p.substeps;
    Keys<kParts> decay;
    if (decays_channels && step == 0) {
      decay = keys_at(p.gk, t);
#pragma unroll
      for (int i = 0; i < 4 * kParts; ++i) decay.x[i] = expf(decay.x[i]);
    } else {
      const float all = decays && step == 0 ? expf(next_g) : 1.0f;
#pragma unroll
      for (int i = 0; i < 4 * kParts; ++i) decay.x[i] = all;
    }
    Keys<kParts> seen, low{};
    if (low_rank)
      seen = keys_at(p.a, row), low = keys_at(p.b, row);
    else
      seen = product(k, decay);
    if (row + 1 < end) {
      next_k = keys_at(p.k, row + 1), next_v = value_at(row + 1);
      if (delta) next_beta = *p.beta.at(row + 1, h);
      if (last) {
        next_q = keys_at(p.q, t + 1);
        if (decays) next_g = *p.g.at(t + 1, h);
      }
    }

    const Keys<kParts> read = early ? q : product(q, decay);
    float sums[2 * kColumns];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) sums[j] = dot(seen, s[j]), sums[kColumns + j] = dot(read, s[j]);
    const float sum = sum_columns(sums);
    const float qk = sum_of_warp(dot(early ? product(q, keys_at(p.bonus, 0)) : q, k));
    // Both halves of the warp have p S of their columns.
    const float from_state = __shfl_sync(~0u, sum, lane % (kWarp / 2));
    const float u = delta ? beta * (v - from_state) : v;
    if (last) {
      float o = fmaf(qk, u, sum);
      if (low_rank) o = fmaf(sum_of_warp(dot(q, low)), from_state, o);
      if (lane >= kWarp / 2 && lane % 4 == 0 && column < p.columns)
        p.out[t * p.out_row + h * p.out_head + column] = p.scale * o;
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const float mine = __shfl_sync(~0u, u, 4 * j);
#pragma unroll
      for (int i = 0; i < 4 * kParts; ++i) s[j].x[i] = fmaf(k.x[i], mine, decay.x[i] * s[j].x[i]);
    }
    if (low_rank) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const float mine = __shfl_sync(~0u, from_state, 4 * j);
#pragma unroll
        for (int i = 0; i < 4 * kParts; ++i) s[j].x[i] = fmaf(low.x[i], mine, s[j].x[i]);
      }
    }
    ++step;
    if (last) step = 0, ++t;
  }
  if (state == nullptr) return;
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    if (first + j < p.columns) store_keys<kParts, kByFour>(state + static_cast<Index>(j) * dk, dk, s[j]);
}

}  // namespace

void recurrence_by_token(const RecurrenceCall& call, std::span<const RecurrenceSequence> all,
                         CudaExec& exec) {
  constexpr const char* op = "linear_recurrence";
  constexpr int kMostKeys = 512;
  if (call.key_dim > kMostKeys)
    refuse(op, "keys have ", call.key_dim, " channels, a device takes up to ", kMostKeys);
  trace(exec, op, "token by token", to_string(std::array<Index, 3>{call.tokens, call.heads, call.value_dim}));
  auto fours_of = [](const RecurrenceInput& x) {
    return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.row % 4 == 0 && x.head % 4 == 0;
  };
  const bool fours = call.key_dim % 4 == 0 && fours_of(call.q) && fours_of(call.k) && fours_of(call.gk) &&
                     fours_of(call.a) && fours_of(call.b) && fours_of(call.bonus);
  CudaScratch scratch(exec);
  const Index count = static_cast<Index>(all.size());
  const auto sequences = argument_list<kFewRecurrences, RecurrenceSequence>(
      exec, op, count, scratch, [&](Index n) { return all[static_cast<std::size_t>(n)]; });
  const Index items = Index{call.heads} * ((call.columns + kColumns - 1) / kColumns);
  // Few tokens: many small blocks, to be on every multiprocessor.
  const unsigned threads = items * count < 8 * exec.multiprocessors() ? kWarp : 4 * kWarp;
  const LaunchShape shape{{blocks(items, threads / kWarp), static_cast<unsigned>(count)}, threads};
  auto run = [&](auto by_four_kernel, auto any_kernel) {
    launch(exec, op, fours ? by_four_kernel : any_kernel, shape, call, sequences);
  };
  if (call.key_dim <= 128)
    run(recurrent_columns<1, true>, recurrent_columns<1, false>);
  else if (call.key_dim <= 256)
    run(recurrent_columns<2, true>, recurrent_columns<2, false>);
  else
    run(recurrent_columns<4, true>, recurrent_columns<4, false>);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
