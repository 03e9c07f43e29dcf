// SPDX-License-Identifier: Apache-2.0
// What a chunk's rows say of each other, see recurrence_chunks.cuh.
#include "src/cuda/recurrence_chunks.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp, kTile = 16, kTiles = kChunk / kTile;
constexpr int kRow = kChunk + 4;         // floats from row to row of L and T
constexpr float kLeastDecay = -1000.0f;  // its exponential is zero, as that of -inf; differences are numbers

__device__ __forceinline__ int lane_id() { return threadIdx.x % kWarp; }

// c [16, 64] = the rows [16 tile, ..) of x times all rows of y up to them, transposed; x, y [64, keys].
__device__ __forceinline__ void row_products(const bf16* x, const bf16* y, int row, int keys, int tile,
                                             float (&c)[2 * kTiles][4]) {
  const int lane = lane_id();
#pragma unroll
  for (int n = 0; n < 2 * kTiles; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) c[n][i] = 0;
  for (int k = 0; k < keys; k += kTile) {
    unsigned a[4];
    load_matrices(a, x + (kTile * tile + lane % 16) * row + k + lane / 16 * 8);
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
      if (n <= tile) {
        unsigned b[4];
        load_matrices(b, y + (kTile * n + lane / 16 * 8 + lane % 8) * row + k + lane / 8 % 2 * 8);
        multiply<bf16>(c[2 * n], a, b[0], b[1]);
        multiply<bf16>(c[2 * n + 1], a, b[2], b[3]);
      }
  }
}

// f(row, column, c0, c1) of the pairs of neighbouring columns that this lane has.
template <class F>
__device__ __forceinline__ void each_pair(const float (&c)[2 * kTiles][4], int tile, F&& f) {
  const int lane = lane_id();
#pragma unroll
  for (int n = 0; n < 2 * kTiles; ++n)
    if (n / 2 <= tile) {
      const int row = kTile * tile + lane / 4, column = 8 * n + lane % 4 * 2;
      f(row, column, c[n][0], c[n][1]);
      f(row + 8, column, c[n][2], c[n][3]);
    }
}

// One thread a column of T = (I + L)^-1, by rows: T_i = I_i - sum_m L_im T_m, 16 rows at a time.
__device__ void invert(const float* l, float* t) {
  const int c = threadIdx.x, start = c / kWarp * kWarp;  // T is zero above the diagonal
  for (int block = 0; block < kTiles; ++block) {
    float x[kTile];
#pragma unroll
    for (int r = 0; r < kTile; ++r) x[r] = kTile * block + r == c ? 1.0f : 0.0f;
    const float* rows = l + kTile * block * kRow;
    for (int m = start; m < kTile * block; m += 4) {
      float above[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) above[i] = t[(m + i) * kRow + c];
#pragma unroll
      for (int r = 0; r < kTile; ++r) {
        const auto row = load<4>(rows + r * kRow + m);
#pragma unroll
        for (int i = 0; i < 4; ++i) x[r] = fmaf(-row.x[i], above[i], x[r]);
      }
    }
#pragma unroll
    for (int r = 1; r < kTile; ++r)
#pragma unroll
      for (int s = 0; s < r; s += 4) {
        const auto row = load<4>(rows + r * kRow + kTile * block + s);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (s + i < r) x[r] = fmaf(-row.x[i], x[s + i], x[r]);
      }
#pragma unroll
    for (int r = 0; r < kTile; ++r) t[(kTile * block + r) * kRow + c] = x[r];
  }
}

// out [64, width] = T diag(factor) x, T lower triangular, x [64, width] in shared memory; f(row, column,
// pair) takes the result, two bf16.
template <class F>
__device__ __forceinline__ void solve(const float* t, const float* factor, const bf16* x, int row, int width,
                                      F&& f) {
  const int lane = lane_id(), warp = threadIdx.x / kWarp;
  unsigned a[kTiles * (kTiles + 1) / 2][4];
#pragma unroll
  for (int r = 0; r < kTiles; ++r)
#pragma unroll
    for (int s = 0; s <= r; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = kTile * s + i / 2 * 8 + lane % 4 * 2;
        const auto pair = load<2>(t + (kTile * r + i % 2 * 8 + lane / 4) * kRow + column);
        a[r * (r + 1) / 2 + s][i] = pack<bf16>(pair.x[0] * factor[column], pair.x[1] * factor[column + 1]);
      }
  for (int n = kTile * warp; n < width; n += kTile * kWarps) {
    float c[kTiles][2][4] = {};
#pragma unroll
    for (int s = 0; s < kTiles; ++s) {
      unsigned b[4];
      load_matrices_transposed(b, x + (kTile * s + lane % 16) * row + n + lane / 16 * 8);
#pragma unroll
      for (int r = s; r < kTiles; ++r) {
        multiply<bf16>(c[r][0], a[r * (r + 1) / 2 + s], b[0], b[1]);
        multiply<bf16>(c[r][1], a[r * (r + 1) / 2 + s], b[2], b[3]);
      }
    }
#pragma unroll
    for (int r = 0; r < kTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = kTile * r + lane / 4, column = n + 8 * half + lane % 4 * 2;
        f(at, column, pack<bf16>(c[r][half][0], c[r][half][1]));
        f(at + 8, column, pack<bf16>(c[r][half][2], c[r][half][3]));
      }
  }
}

__device__ __forceinline__ Floats<4> load_four(const float* p, int c, int dim, bool by_four) {
  if (by_four) return c < dim ? load<4>(p + c) : Floats<4>{};
  Floats<4> v;
  for (int j = 0; j < 4; ++j) v.x[j] = c + j < dim ? p[c + j] : 0.0f;
  return v;
}
__device__ __forceinline__ Floats<4> times(Floats<4> v, float x) {
  for (float& e : v.x) e *= x;
  return v;
}

// A block a chunk and head.
template <bool kDelta>
__global__ void __launch_bounds__(kThreads) chunk_local(const ChunkCall p) {
  let_next_start();
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ double sums[kChunk];
  __shared__ float strength[kChunk], reach[kChunk], left[kChunk], grown[kChunk];
  const RecurrenceCall& call = p.call;
  const int h = blockIdx.x, lane = lane_id(), warp = threadIdx.x / kWarp;
  const Index chunk = p.first + blockIdx.y, item = static_cast<Index>(blockIdx.y) * call.heads + h;
  const int key_row = p.key_row, values = p.panels * kPanel, value_row = values + kGap;
  bf16* const k = reinterpret_cast<bf16*>(shared);
  bf16* const q = k + kChunk * key_row;  // and later v
  float* const l = reinterpret_cast<float*>(q + kChunk * (value_row > key_row ? value_row : key_row));
  float* const t = l + kChunk * kRow;
  bf16* const w_out = p.squares + item * p.square_elements(kDelta);
  bf16* const q_out = w_out + (kDelta ? kChunk * key_row : 0);
  bf16* const k_out = q_out + kChunk * key_row;
  bf16* const a_out = k_out + kChunk * key_row;
  bf16* const v_out = p.values + item * p.panels * ChunkCall::kPanelElements;
  wait_for_previous();

  int low = 0, high = p.count - 1;  // the last sequence that begins at this chunk or before
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (p.sequences[middle].first_chunk <= chunk)
      low = middle;
    else
      high = middle - 1;
  }
  const ChunkSequence sequence = p.sequences[low];
  const Index begin = sequence.begin + (chunk - sequence.first_chunk) * kChunk;
  const int rows = static_cast<int>(sequence.end - begin < kChunk ? sequence.end - begin : kChunk);
  const int n = call.substeps;

  if (warp == 0) {
    double g[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = 2 * lane + i;
      const Index at = begin + row;
      float mine = 0;
      if (row < rows && call.g.data != nullptr && at % n == 0) mine = *call.g.at(at / n, h);
      g[i] = static_cast<double>(mine < kLeastDecay ? kLeastDecay : mine);
      strength[row] = kDelta && row < rows ? *call.beta.at(at, h) : 0.0f;
    }
    double sum = g[0] + g[1];
    for (int d = 1; d < kWarp; d *= 2) {
      const double before = __shfl_up_sync(~0u, sum, d);
      if (lane >= d) sum += before;
    }
    const double all = __shfl_sync(~0u, sum, kWarp - 1), mine[2] = {sum - g[1], sum};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = 2 * lane + i;
      sums[row] = mine[i];
      reach[row] = expf(static_cast<float>(mine[i]));
      left[row] = expf(static_cast<float>(all - mine[i]));
      grown[row] = strength[row] * reach[row];
    }
    if (lane == 0) p.decay[item] = expf(static_cast<float>(all));
  }
  __syncthreads();

  for (int c = 4 * lane; c < p.keys; c += 4 * kWarp)
#pragma unroll 4
    for (int row = warp; row < kChunk; row += kWarps) {
      const Index at = begin + row;
      Floats<4> mine{}, asks{};
      if (row < rows) {
        mine = load_four(call.k.at(at, h), c, call.key_dim, p.by_four);
        if (at % n == n - 1)
          asks = times(load_four(call.q.at(at / n, h), c, call.key_dim, p.by_four), call.scale);
      }
      store<4>(k + row * key_row + c, mine);
      store<4>(q + row * key_row + c, asks);
      store<4>(k_out + row * key_row + c, times(mine, left[row]));
      store<4>(q_out + row * key_row + c, times(asks, reach[row]));
    }
  __syncthreads();

  auto decay = [&](int i, int j) { return expf(static_cast<float>(sums[i] - sums[j])); };
  if constexpr (kDelta) {
    float c[2 * kTiles][4];
    row_products(k, k, key_row, p.keys, warp, c);
    each_pair(c, warp, [&](int i, int j, float x, float y) {
      l[i * kRow + j] = j < i ? strength[i] * x * decay(i, j) : 0.0f;
      l[i * kRow + j + 1] = j + 1 < i ? strength[i] * y * decay(i, j + 1) : 0.0f;
    });
    __syncthreads();
  }
  // A: with the delta rule by the warps that do not invert, two tiles each.
  auto attend = [&](int tile) {
    float c[2 * kTiles][4];
    row_products(q, k, key_row, p.keys, tile, c);
    each_pair(c, tile, [&](int i, int j, float x, float y) {
      x = j <= i ? x * decay(i, j) : 0.0f;
      y = j + 1 <= i ? y * decay(i, j + 1) : 0.0f;
      *reinterpret_cast<unsigned*>(a_out + i * kSquareRow + j) = pack<bf16>(x, y);
    });
  };
  if constexpr (!kDelta) {
    attend(warp);
  } else if (warp < 2) {
    invert(l, t);
  } else {
    attend(warp - 2);
    attend(5 - warp);
  }
  auto value_at = [&](int row, int column) {
    return v_out + column / kPanel * ChunkCall::kPanelElements + row * kPanelRow + column % kPanel;
  };
  if constexpr (kDelta) __syncthreads();
  for (int c = 4 * lane; c < values; c += 4 * kWarp)
#pragma unroll 4
    for (int row = warp; row < kChunk; row += kWarps) {
      Floats<4> mine{};
      if (row < rows) mine = load_four(call.v.at(begin + row, h), c, call.value_dim, p.by_four);
      store<4>(kDelta ? q + row * value_row + c : value_at(row, c), mine);
    }
  if constexpr (kDelta) {
    solve(t, grown, k, key_row, p.keys, [&](int row, int column, unsigned pair) {
      *reinterpret_cast<unsigned*>(w_out + row * key_row + column) = pair;
    });
    __syncthreads();
    solve(t, strength, q, value_row, values, [&](int row, int column, unsigned pair) {
      *reinterpret_cast<unsigned*>(value_at(row, column)) = pair;
    });
  }
}

}  // namespace

void launch_chunk_local(const ChunkCall& p, CudaExec& exec) {
  const int value_row = p.panels * kPanel + kGap;
  const bool delta = p.call.beta.data != nullptr;
  const std::size_t bytes =
      sizeof(bf16) * kChunk * static_cast<std::size_t>(p.key_row + std::max(p.key_row, value_row)) +
      (delta ? sizeof(float) * 2 * kChunk * kRow : 0);
  launch(exec, "linear_recurrence", delta ? chunk_local<true> : chunk_local<false>,
         {{static_cast<unsigned>(p.call.heads), static_cast<unsigned>(p.last - p.first)}, kThreads, bytes},
         p);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
