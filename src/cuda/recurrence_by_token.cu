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

constexpr int kColumns = 4;     // of the state that a warp holds
constexpr int kMostGroups = 8;  // of them, one after the other

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

// A row of k and what goes with it, all but its value.
template <int kParts>
struct Row {
  Keys<kParts> k, decay, seen, read, low;  // seen, read: p and r; low: b
  float qk, qb, beta;
  bool delta, low_rank;

  // Derives the rest from q, k, decay, and reads a, b and the bonus.
  template <class At>
  __device__ __forceinline__ void prepare(const RecurrenceCall& p, const Keys<kParts>& q, Index row,
                                          At&& keys_at) {
    delta = p.beta.data != nullptr, low_rank = p.a.data != nullptr;
    if (low_rank)
      seen = keys_at(p.a, row), low = keys_at(p.b, row), qb = sum_of_warp(dot(q, low));
    else
      seen = product(k, decay);
    const bool early = p.bonus.data != nullptr;
    read = early ? q : product(q, decay);
    qk = sum_of_warp(dot(early ? product(q, keys_at(p.bonus, 0)) : q, k));
  }
  // Takes the columns to their next state; lane l has the value v of column l / 4 % kColumns. Returns its
  // output in the upper half of the warp.
  __device__ __forceinline__ float apply(Keys<kParts> (&s)[kColumns], float v) const {
    float sums[2 * kColumns];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) sums[j] = dot(seen, s[j]), sums[kColumns + j] = dot(read, s[j]);
    const float sum = sum_columns(sums);
    const float from_state = __shfl_sync(~0u, sum, threadIdx.x % (kWarp / 2));
    const float u = delta ? beta * (v - from_state) : v;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const float mine = __shfl_sync(~0u, u, 4 * j);
#pragma unroll
      for (int i = 0; i < 4 * kParts; ++i) s[j].x[i] = fmaf(k.x[i], mine, decay.x[i] * s[j].x[i]);
    }
    float o = fmaf(qk, u, sum);
    if (low_rank) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const float mine = __shfl_sync(~0u, from_state, 4 * j);
#pragma unroll
        for (int i = 0; i < 4 * kParts; ++i) s[j].x[i] = fmaf(low.x[i], mine, s[j].x[i]);
      }
      o = fmaf(qb, from_state, o);
    }
    return o;
  }
};

// What a warp works on: a sequence, a head, `groups` groups of kColumns columns.
struct Item {
  int h, first;
  bool any;
};
__device__ __forceinline__ Item item_of(const RecurrenceCall& p, int groups) {
  const int width = kColumns * groups, panels = (p.columns + width - 1) / width;
  const int warp = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / kWarp;
  return {warp / panels, warp % panels * width, warp < p.heads * panels};
}

template <int kParts, bool kByFour>
__device__ __forceinline__ void load_columns(Keys<kParts> (&s)[kColumns], const float* state, int first,
                                             const RecurrenceCall& p) {
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    s[j] = state != nullptr && first + j < p.columns
               ? load_keys<kParts, kByFour>(state + static_cast<Index>(first + j) * p.key_dim, p.key_dim)
               : Keys<kParts>{};
}
template <int kParts, bool kByFour>
__device__ __forceinline__ void store_columns(const Keys<kParts> (&s)[kColumns], float* state, int first,
                                              const RecurrenceCall& p) {
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    if (first + j < p.columns)
      store_keys<kParts, kByFour>(state + static_cast<Index>(first + j) * p.key_dim, p.key_dim, s[j]);
}

__device__ __forceinline__ float value_at(const RecurrenceCall& p, Index row, int h, int first) {
  const int column = first + static_cast<int>(threadIdx.x) % kWarp / 4 % kColumns;
  return column < p.value_dim ? p.v.at(row, h)[column] : column < p.columns ? 1.0f : 0.0f;
}
__device__ __forceinline__ void write_out(const RecurrenceCall& p, Index t, int h, int first, float o) {
  const int lane = threadIdx.x % kWarp, column = first + lane / 4 % kColumns;
  if (lane >= kWarp / 2 && lane % 4 == 0 && column < p.columns)
    p.out[t * p.out_row + h * p.out_head + column] = p.scale * o;
}

// One row of each sequence: a group of columns comes while the one before it is worked on.
template <int kParts, bool kByFour>
__global__ void __launch_bounds__(128, kParts == 1 ? 6 : 1)
    recurrent_step(const RecurrenceCall p, const RecurrenceSequences sequences, const int groups) {
  let_next_start();
  const Item item = item_of(p, groups);
  if (item.any && sequences.many == nullptr && sequences.few[blockIdx.y].state != nullptr) {
    const float* columns =
        sequences.few[blockIdx.y].state + (static_cast<Index>(item.h) * p.columns + item.first) * p.key_dim;
    const int all = min(kColumns, p.columns - item.first) * p.key_dim;
    for (int i = 32 * static_cast<int>(threadIdx.x % kWarp); i < all; i += 32 * kWarp) prefetch(columns + i);
  }
  wait_for_previous();
  if (!item.any) return;
  const RecurrenceSequence sequence = sequences[blockIdx.y];
  float* const state = sequence.state == nullptr
                           ? nullptr
                           : sequence.state + static_cast<Index>(item.h) * p.columns * p.key_dim;
  const int last = min(item.first + kColumns * groups, p.columns);
  Keys<kParts> next[kColumns];
  load_columns<kParts, kByFour>(next, state, item.first, p);
  const Index t = sequence.begin;
  float next_v = value_at(p, t, item.h, item.first);
  auto keys_at = [&](const RecurrenceInput& x, Index at) {
    return load_keys<kParts, kByFour>(x.at(at, item.h), p.key_dim);
  };
  Row<kParts> row;
  const Keys<kParts> q = keys_at(p.q, t);
  row.k = keys_at(p.k, t);
  row.beta = p.beta.data != nullptr ? *p.beta.at(t, item.h) : 0.0f;
  if (p.gk.data != nullptr) {
    row.decay = keys_at(p.gk, t);
#pragma unroll
    for (int i = 0; i < 4 * kParts; ++i) row.decay.x[i] = expf(row.decay.x[i]);
  } else {
    const float all = p.g.data != nullptr ? expf(*p.g.at(t, item.h)) : 1.0f;
#pragma unroll
    for (int i = 0; i < 4 * kParts; ++i) row.decay.x[i] = all;
  }
  row.prepare(p, q, t, keys_at);
  for (int first = item.first; first < last; first += kColumns) {
    Keys<kParts> s[kColumns];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) s[j] = next[j];
    const float v = next_v;
    if (first + kColumns < last) {
      load_columns<kParts, kByFour>(next, state, first + kColumns, p);
      next_v = value_at(p, t, item.h, first + kColumns);
    }
    write_out(p, t, item.h, first, row.apply(s, v));
    if (state != nullptr) store_columns<kParts, kByFour>(s, state, first, p);
  }
}

// Rows of any number: a warp has its columns in registers to the end.
template <int kParts, bool kByFour>
__global__ void __launch_bounds__(128)
    recurrent_rows(const RecurrenceCall p, const RecurrenceSequences sequences) {
  let_next_start();
  const Item item = item_of(p, 1);
  wait_for_previous();
  if (!item.any) return;
  const int h = item.h;
  const RecurrenceSequence sequence = sequences[blockIdx.y];
  const Index end = sequence.end * p.substeps;
  float* const state =
      sequence.state == nullptr ? nullptr : sequence.state + static_cast<Index>(h) * p.columns * p.key_dim;
  Keys<kParts> s[kColumns];
  load_columns<kParts, kByFour>(s, state, item.first, p);
  auto keys_at = [&](const RecurrenceInput& x, Index at) {
    return load_keys<kParts, kByFour>(x.at(at, h), p.key_dim);
  };
  // What a row reads is fetched while the one before it is worked on.
  Index t = sequence.begin, at = t * p.substeps;
  Keys<kParts> next_q = keys_at(p.q, t), next_k = keys_at(p.k, at);
  float next_v = value_at(p, at, h, item.first);
  float next_beta = p.beta.data != nullptr ? *p.beta.at(at, h) : 0.0f;
  float next_g = p.g.data != nullptr ? *p.g.at(t, h) : 0.0f;
  for (int step = 0; at < end; ++at) {
    Row<kParts> row;
    const Keys<kParts> q = next_q;
    row.k = next_k, row.beta = next_beta;
    const float v = next_v;
    const bool last = step + 1 == p.substeps;
    if (p.gk.data != nullptr && step == 0) {
      row.decay = keys_at(p.gk, t);
#pragma unroll
      for (int i = 0; i < 4 * kParts; ++i) row.decay.x[i] = expf(row.decay.x[i]);
    } else {
      const float all = p.g.data != nullptr && step == 0 ? expf(next_g) : 1.0f;
#pragma unroll
      for (int i = 0; i < 4 * kParts; ++i) row.decay.x[i] = all;
    }
    if (at + 1 < end) {
      next_k = keys_at(p.k, at + 1), next_v = value_at(p, at + 1, h, item.first);
      if (p.beta.data != nullptr) next_beta = *p.beta.at(at + 1, h);
      if (last) {
        next_q = keys_at(p.q, t + 1);
        if (p.g.data != nullptr) next_g = *p.g.at(t + 1, h);
      }
    }
    row.prepare(p, q, at, keys_at);
    const float o = row.apply(s, v);
    if (last) write_out(p, t, h, item.first, o);
    ++step;
    if (last) step = 0, ++t;
  }
  if (state != nullptr) store_columns<kParts, kByFour>(s, state, item.first, p);
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
  bool one = call.substeps == 1;
  for (const RecurrenceSequence& s : all) one = one && s.end - s.begin == 1;
  const Index columns = call.columns, warps = (columns + kColumns - 1) / kColumns * call.heads * count;
  // One token: more columns a warp, one group after the other, where there are enough to be everywhere.
  int groups = 1;
  while (one && groups < kMostGroups && warps / (2 * groups) >= 48 * exec.multiprocessors()) groups *= 2;
  const Index items = call.heads * ((columns + kColumns * groups - 1) / (kColumns * groups));
  const unsigned threads = items * count < 8 * exec.multiprocessors() ? kWarp : 4 * kWarp;
  const LaunchShape shape{{blocks(items, threads / kWarp), static_cast<unsigned>(count)}, threads};
  auto run = [&](auto step, auto any_step, auto rows, auto any_rows) {
    one ? launch(exec, op, fours ? step : any_step, shape, call, sequences, groups)
        : launch(exec, op, fours ? rows : any_rows, shape, call, sequences);
  };
  if (call.key_dim <= 128)
    run(recurrent_step<1, true>, recurrent_step<1, false>, recurrent_rows<1, true>, recurrent_rows<1, false>);
  else if (call.key_dim <= 256)
    run(recurrent_step<2, true>, recurrent_step<2, false>, recurrent_rows<2, true>, recurrent_rows<2, false>);
  else
    run(recurrent_step<4, true>, recurrent_step<4, false>, recurrent_rows<4, true>, recurrent_rows<4, false>);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
