// SPDX-License-Identifier: Apache-2.0
// What a chunk's rows say of each other, see recurrence_chunks.cuh.
#include "src/cuda/recurrence_chunks.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kTile = 16, kTiles = kChunk / kTile;
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

// c [16, 8] += a [16, 8] b [8, 8], rounded to tf32.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  auto rounded = [](float x) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
  };
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(rounded(a[0])), "r"(rounded(a[1])), "r"(rounded(a[2])), "r"(rounded(a[3])), "r"(rounded(b[0])),
        "r"(rounded(b[1])));
}

// c [16, 8] = sign a [16, k] b [k, 8], a and b with rows of kRow floats.
__device__ __forceinline__ void multiply_small(float* c, float sign, const float* a, const float* b, int k) {
  const int row = lane_id() / 4, column = lane_id() % 4;
  float sums[4] = {};
  for (int i = 0; i < k; i += 8) {
    const float x[4] = {a[row * kRow + i + column], a[(row + 8) * kRow + i + column],
                        a[row * kRow + i + column + 4], a[(row + 8) * kRow + i + column + 4]};
    const float y[2] = {b[(i + column) * kRow + row], b[(i + column + 4) * kRow + row]};
    multiply_tf32(sums, x, y);
  }
  c[row * kRow + 2 * column] = sign * sums[0], c[row * kRow + 2 * column + 1] = sign * sums[1];
  c[(row + 8) * kRow + 2 * column] = sign * sums[2], c[(row + 8) * kRow + 2 * column + 1] = sign * sums[3];
}

// t = (I + t)^-1 for a t [64, 64] that is zero on and above the diagonal of its 16 x 16 blocks on the
// diagonal; what lies above those is not looked at. They are inverted row by row; then
//   [A 0; B C]^-1 = [A^-1 0; -C^-1 B A^-1 C^-1]
// for blocks of 16 and of 32. work: 32 rows of kRow floats. All warps call it.
__device__ void invert(float* t, float* work) {
  const int warp = threadIdx.x / kWarp;
  if (warp < kTiles) {
    float* const block = t + kTile * warp * (kRow + 1);
    const int c = lane_id() % kTile;
    float x[kTile];
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
      x[r] = r == c ? 1.0f : 0.0f;
#pragma unroll
      for (int s = 0; s < r; s += 4) {
        const auto row = load<4>(block + r * kRow + s);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (s + i < r) x[r] = fmaf(-row.x[i], x[s + i], x[r]);
      }
    }
    __syncwarp();
    if (lane_id() < kTile)
#pragma unroll
      for (int r = 0; r < kTile; ++r) block[r * kRow + c] = x[r];
  }
  __syncthreads();
  // Blocks (1, 0) and (3, 2), by two warps each.
  const int pair = warp / 2 % 2, half = warp % 2 * 8;
  float* const upper = t + 2 * kTile * pair * (kRow + 1);
  float* const lower = upper + kTile * (kRow + 1);
  float* const beside = upper + kTile * kRow;
  if (warp < kTiles) multiply_small(work + pair * kTile * kRow + half, 1, beside, upper + half, kTile);
  __syncthreads();
  if (warp < kTiles) multiply_small(beside + half, -1, lower, work + pair * kTile * kRow + half, kTile);
  __syncthreads();
  // Rows 32 and on of columns 0 to 31: a warp 16 rows and 8 columns.
  const int rows = warp / 4 * kTile, columns = warp % 4 * 8, above = columns / kTile * kTile;
  float* const corner = t + 2 * kTile * kRow;
  multiply_small(work + rows * kRow + columns, 1, corner + rows * kRow + above, t + above * kRow + columns,
                 2 * kTile - above);
  __syncthreads();
  multiply_small(corner + rows * kRow + columns, -1, corner + rows * kRow + 2 * kTile, work + columns,
                 rows + kTile);
  __syncthreads();
}

// out [64, width] = T diag(factor) x, T lower triangular, x [64, width] in shared memory; f(row, column,
// pair) takes the result, two bf16.
template <class To>
__device__ __forceinline__ void solve(const float* t, const float* factor, const bf16* x, int row, int width,
                                      To&& to, int to_row) {
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
    bf16* const out = to(n) + lane / 4 * to_row + lane % 4 * 2;
#pragma unroll
    for (int r = 0; r < kTiles; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          *reinterpret_cast<unsigned*>(out + (kTile * r + 8 * i) * to_row + 8 * half) =
              pack<bf16>(c[r][half][2 * i], c[r][half][2 * i + 1]);
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
__global__ void __launch_bounds__(kThreads, 2) chunk_local(const ChunkCall p) {
  let_next_start();
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ double sums[kChunk];
  __shared__ float strength[kChunk], reach[kChunk], left[kChunk], grown[kChunk];
  const RecurrenceCall& call = p.call;
  const int h = blockIdx.x, lane = lane_id(), warp = threadIdx.x / kWarp;
  const Index chunk = p.first + blockIdx.y, item = static_cast<Index>(blockIdx.y) * call.heads + h;
  const int key_row = p.key_row, values = p.panels * p.panel, value_row = values + kGap;
  bf16* const k = reinterpret_cast<bf16*>(shared);
  bf16* const q = k + kChunk * key_row;  // and later v
  float* const t = reinterpret_cast<float*>(q + kChunk * (value_row > key_row ? value_row : key_row));
  bf16* const w_out = p.squares + item * p.square_elements(kDelta);
  bf16* const q_out = w_out + (kDelta ? kChunk * key_row : 0);
  bf16* const k_out = q_out + kChunk * key_row;
  bf16* const a_out = k_out + kChunk * key_row;
  bf16* const v_out = p.values + item * p.panels * p.panel_elements();
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
  // Values are used last.
  for (int c = 32 * lane; c < call.value_dim; c += 32 * kWarp)
    for (int row = warp; row < rows; row += kWarps) prefetch(call.v.at(begin + row, h) + c);
  // Row i is of token first_token + (offset + i) / n.
  const int n = call.substeps;
  const Index first_token = begin / n;
  const int offset = static_cast<int>(begin - first_token * n);
  auto token_of = [&](int row) { return first_token + (n == 1 ? row : (offset + row) / n); };
  auto step_of = [&](int row) { return n == 1 ? 0 : (offset + row) % n; };

  if (warp == 0) {
    double g[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = 2 * lane + i;
      float mine = 0;
      if (row < rows && call.g.data != nullptr && step_of(row) == 0) mine = *call.g.at(token_of(row), h);
      g[i] = static_cast<double>(mine < kLeastDecay ? kLeastDecay : mine);
      strength[row] = kDelta && row < rows ? *call.beta.at(begin + row, h) : 0.0f;
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
#pragma unroll
    for (int i = 0; i < kChunk / kWarps; ++i) {
      const int row = warp + kWarps * i;
      Floats<4> mine{}, asks{};
      if (row < rows) {
        mine = load_four(call.k.at(begin + row, h), c, call.key_dim, p.by_four);
        if (step_of(row) == n - 1)
          asks = times(load_four(call.q.at(token_of(row), h), c, call.key_dim, p.by_four), call.scale);
      }
      store<4>(k + row * key_row + c, mine);
      store<4>(q + row * key_row + c, asks);
      store<4>(k_out + row * key_row + c, times(mine, left[row]));
      store<4>(q_out + row * key_row + c, times(asks, reach[row]));
    }
  __syncthreads();

  auto decay = [&](int i, int j) { return expf(static_cast<float>(sums[i] - sums[j])); };
  const int tile = warp % kTiles;
  if (warp < kTiles) {
    if constexpr (kDelta) {
      float c[2 * kTiles][4];
      row_products(k, k, key_row, p.keys, tile, c);
      each_pair(c, tile, [&](int i, int j, float x, float y) {
        t[i * kRow + j] = j < i ? strength[i] * x * decay(i, j) : 0.0f;
        t[i * kRow + j + 1] = j + 1 < i ? strength[i] * y * decay(i, j + 1) : 0.0f;
      });
    }
  } else {
    float c[2 * kTiles][4];
    row_products(q, k, key_row, p.keys, tile, c);
    each_pair(c, tile, [&](int i, int j, float x, float y) {
      x = j <= i ? x * decay(i, j) : 0.0f;
      y = j + 1 <= i ? y * decay(i, j + 1) : 0.0f;
      *reinterpret_cast<unsigned*>(a_out + i * kSquareRow + j) = pack<bf16>(x, y);
    });
  }
  if constexpr (kDelta) {
    __syncthreads();
    invert(t, t + kChunk * kRow);
  }
  auto value_at = [&](int row, int column) {
    return v_out + column / p.panel * p.panel_elements() + row * (p.panel + kGap) + column % p.panel;
  };
  for (int c = 4 * lane; c < values; c += 4 * kWarp) {
    bf16* const to = kDelta ? q + c : value_at(0, c);
    const int to_row = kDelta ? value_row : p.panel + kGap;
#pragma unroll
    for (int i = 0; i < kChunk / kWarps; ++i) {
      const int row = warp + kWarps * i;
      Floats<4> mine{};
      if (row < rows) mine = load_four(call.v.at(begin + row, h), c, call.value_dim, p.by_four);
      store<4>(to + row * to_row, mine);
    }
  }
  if constexpr (kDelta) {
    solve(
        t, grown, k, key_row, p.keys, [&](int column) { return w_out + column; }, key_row);
    __syncthreads();
    solve(
        t, strength, q, value_row, values, [&](int column) { return value_at(0, column); }, p.panel + kGap);
  }
}

}  // namespace

void launch_chunk_local(const ChunkCall& p, CudaExec& exec) {
  const int value_row = p.panels * p.panel + kGap;
  const bool delta = p.call.beta.data != nullptr;
  const int rounded = kChunk * (p.key_row + (delta ? std::max(p.key_row, value_row) : p.key_row));
  const int squares = delta ? (kChunk + 2 * kTile) * kRow : 0;
  launch(
      exec, "linear_recurrence", delta ? chunk_local<true> : chunk_local<false>,
      {{static_cast<unsigned>(p.call.heads), static_cast<unsigned>(p.last - p.first)},
       kThreads,
       sizeof(bf16) * static_cast<std::size_t>(rounded) + sizeof(float) * static_cast<std::size_t>(squares)},
      p);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
