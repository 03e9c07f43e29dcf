// SPDX-License-Identifier: Apache-2.0
// The recurrence token after token, for every member of the family; one token is a step of decoding, bound by
// the memory of the state.
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

// Sums over the warp of a value a column, all columns' in all lanes.
__device__ __forceinline__ void sum_columns(float (&v)[kColumns]) {
#pragma unroll
  for (int d = kWarp / 2; d > 0; d /= 2)
#pragma unroll
    for (int j = 0; j < kColumns; ++j) v[j] += __shfl_xor_sync(~0u, v[j], d);
}

template <int kParts>
__device__ __forceinline__ void dot_columns(const Keys<kParts>& x, const Keys<kParts> (&s)[kColumns],
                                            float (&dots)[kColumns]) {
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    dots[j] = 0;
#pragma unroll
    for (int i = 0; i < 4 * kParts; ++i) dots[j] = fmaf(x.x[i], s[j].x[i], dots[j]);
  }
  sum_columns(dots);
}

// A warp a sequence, head and kColumns columns of the state, in registers.
template <int kParts, bool kByFour>
__global__ void __launch_bounds__(128)
    recurrent_columns(const RecurrenceCall p, const RecurrenceSequences sequences) {
  let_next_start();
  wait_for_previous();
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int groups = (p.columns + kColumns - 1) / kColumns;
  const int item = static_cast<int>(blockIdx.x) * (static_cast<int>(blockDim.x) / kWarp) + warp;
  if (item >= p.heads * groups) return;
  const int h = item / groups, first = item % groups * kColumns, dk = p.key_dim;
  const RecurrenceSequence sequence = sequences[blockIdx.y];
  const Index begin = sequence.begin, end = sequence.end;
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
  // What a token reads is fetched while the one before it is worked on.
  Keys<kParts> next_q = keys_at(p.q, begin), next_k = keys_at(p.k, begin * p.substeps);
  float next_v[kColumns];
  auto values_at = [&](Index row) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int c = first + j;
      next_v[j] = c < p.value_dim ? p.v.at(row, h)[c] : c < p.columns ? 1.0f : 0.0f;
    }
  };
  values_at(begin * p.substeps);
  float next_g = p.g.data != nullptr ? *p.g.at(begin, h) : 0.0f;
  float next_beta = p.beta.data != nullptr ? *p.beta.at(begin * p.substeps, h) : 0.0f;

  for (Index t = begin; t < end; ++t) {
    const Keys<kParts> q = next_q;
    const float decay = p.g.data != nullptr ? expf(next_g) : 1.0f;
    if (t + 1 < end) {
      next_q = keys_at(p.q, t + 1);
      if (p.g.data != nullptr) next_g = *p.g.at(t + 1, h);
    }
    float o[kColumns];
    for (int step = 0; step < p.substeps; ++step) {
      const Index row = t * p.substeps + step;
      const Keys<kParts> k = next_k;
      float u[kColumns], w[kColumns];
#pragma unroll
      for (int j = 0; j < kColumns; ++j) u[j] = next_v[j];
      const float beta = next_beta;
      if (row + 1 < end * p.substeps) {
        next_k = keys_at(p.k, row + 1);
        values_at(row + 1);
        if (p.beta.data != nullptr) next_beta = *p.beta.at(row + 1, h);
      }
      if (p.a.data != nullptr) dot_columns(keys_at(p.a, row), s, w);
      if (p.bonus.data != nullptr) {  // read before the update
        const Keys<kParts> bonus = keys_at(p.bonus, 0);
        float own[kColumns];
        Keys<kParts> qk;
#pragma unroll
        for (int i = 0; i < 4 * kParts; ++i) qk.x[i] = q.x[i] * bonus.x[i] * k.x[i];
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          own[j] = 0;
#pragma unroll
          for (int i = 0; i < 4 * kParts; ++i) own[j] = fmaf(qk.x[i], u[j], fmaf(q.x[i], s[j].x[i], own[j]));
        }
        sum_columns(own);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) o[j] = own[j];
      }
      if (step == 0 && p.g.data != nullptr) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
#pragma unroll
          for (int i = 0; i < 4 * kParts; ++i) s[j].x[i] *= decay;
      }
      if (step == 0 && p.gk.data != nullptr) {
        Keys<kParts> gk = keys_at(p.gk, t);
#pragma unroll
        for (int i = 0; i < 4 * kParts; ++i) gk.x[i] = expf(gk.x[i]);
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
#pragma unroll
          for (int i = 0; i < 4 * kParts; ++i) s[j].x[i] *= gk.x[i];
      }
      if (p.beta.data != nullptr) {
        float seen[kColumns];
        dot_columns(k, s, seen);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) u[j] = beta * (u[j] - seen[j]);
      }
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
#pragma unroll
        for (int i = 0; i < 4 * kParts; ++i) s[j].x[i] = fmaf(k.x[i], u[j], s[j].x[i]);
      if (p.a.data != nullptr) {
        const Keys<kParts> b = keys_at(p.b, row);
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
#pragma unroll
          for (int i = 0; i < 4 * kParts; ++i) s[j].x[i] = fmaf(b.x[i], w[j], s[j].x[i]);
      }
    }
    if (p.bonus.data == nullptr) dot_columns(q, s, o);
    if (lane < kColumns && first + lane < p.columns) {
      float mine = o[0];
#pragma unroll
      for (int j = 1; j < kColumns; ++j) mine = lane == j ? o[j] : mine;
      p.out[t * p.out_row + h * p.out_head + first + lane] = p.scale * mine;
    }
  }
  if (state == nullptr) return;
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    if (first + j < p.columns) store_keys<kParts, kByFour>(state + static_cast<Index>(j) * dk, dk, s[j]);
}

bool by_four(const RecurrenceInput& x) {
  return x.data == nullptr ||
         (reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.row % 4 == 0 && x.head % 4 == 0);
}

}  // namespace

void recurrence_by_token(const RecurrenceCall& call, const RecurrenceSequences& sequences, CudaExec& exec) {
  constexpr const char* op = "linear_recurrence";
  constexpr int kMostKeys = 512;
  if (call.key_dim > kMostKeys)
    refuse(op, "keys have ", call.key_dim, " channels, a device takes up to ", kMostKeys);
  trace(exec, op, "token by token", to_string(std::array<Index, 3>{call.tokens, call.heads, call.value_dim}));
  const bool fours = call.key_dim % 4 == 0 && by_four(call.q) && by_four(call.k) && by_four(call.gk) &&
                     by_four(call.a) && by_four(call.b) && by_four(call.bonus);
  const Index items = Index{call.heads} * ((call.columns + kColumns - 1) / kColumns);
  // One token: many small blocks, to be on every multiprocessor.
  const int threads = call.longest == 1 && items * call.count < 8 * exec.multiprocessors() ? 2 * kWarp : 128;
  const LaunchShape shape{{blocks(items, threads / kWarp), static_cast<unsigned>(call.count)},
                          static_cast<unsigned>(threads)};
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

bool recurrence_in_chunks(const RecurrenceCall&, const RecurrenceSequences&, CudaExec&) { return false; }

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
