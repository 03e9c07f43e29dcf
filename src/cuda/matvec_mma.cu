// SPDX-License-Identifier: Apache-2.0
// Dense layers of a few rows by tensor cores: bound by the memory that the bf16 weights are read from,
// whatever the number of rows, which are rounded to bf16.
#include "src/cuda/matvec.cuh"
#include "src/cuda/mma.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kFeatures = 16, kTokens = 8;  // of a tensor core's tile
constexpr int kSlice = 32;                  // inputs that a warp multiplies at a time
constexpr int kPass = kSlice * kWarps;      // and the block
constexpr int kAhead = 6;                   // passes whose weights are on their way

// A lane's weights of one pass: 8 inputs of the features g and g + 8, g = lane / 4.
struct Weights {
  uint4 low, high;
};

__device__ __forceinline__ Weights load_pass(const MatvecLayer& a, int feature, int pass) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, row = feature + lane / 4;
  const int k = pass * kPass + warp * kSlice + lane % 4 * 8;
  const bf16* const at = static_cast<const bf16*>(a.weight) + row * a.weight_stride + k;
  Weights w{};
  if (k < a.inputs && row < a.features) w.low = load_weights(at);
  if (k < a.inputs && row + 8 < a.features) w.high = load_weights(at + 8 * a.weight_stride);
  return w;
}

// Where a block stands on its way over the passes of its units.
struct Place {
  int unit, pass;
  __device__ void advance(const MatvecLayers& layers) {
    if (unit >= layers.units) return;
    if (++pass * kPass < layer_of(layers, unit).inputs) return;
    pass = 0, unit += gridDim.x;
  }
};

__device__ __forceinline__ Weights load_place(const MatvecLayers& layers, const Place& p) {
  if (p.unit >= layers.units) return {};
  const MatvecLayer& a = layer_of(layers, p.unit);
  return load_pass(a, (p.unit - a.first_unit) * kFeatures, p.pass);
}

// A lane's inputs of one pass: 8 of the row lane / 4 of each tile.
template <int kTiles>
struct Rows {
  Floats<4> low[kTiles], high[kTiles];
};

template <int kTiles>
__device__ __forceinline__ Rows<kTiles> load_rows(const MatvecLayer& a, int pass, int tokens) {
  const int k =
      pass * kPass + static_cast<int>(threadIdx.x) / kWarp * kSlice + static_cast<int>(threadIdx.x) % 4 * 8;
  Rows<kTiles> x{};
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const int m = n * kTokens + static_cast<int>(threadIdx.x) % kWarp / 4;
    if (m >= tokens || k >= a.inputs) continue;
    x.low[n] = load<4>(a.x + m * a.x_stride + k), x.high[n] = load<4>(a.x + m * a.x_stride + k + 4);
  }
  return x;
}

// The order of a tile's inputs does not matter as long as weights and x have the same: lane 4 g + t takes the
// 8 inputs from 8 t on, in two products of 16.
template <int kTiles>
__global__ void __launch_bounds__(kThreads, 2) matvec_tiles(const MatvecLayers layers, int tokens) {
  __shared__ float partial[2][kWarps][kTiles][kFeatures * kTokens];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int parity = 0;
  Place ahead{static_cast<int>(blockIdx.x), 0};
  Weights queue[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) queue[i] = load_place(layers, ahead), ahead.advance(layers);
  let_next_start();
  wait_for_previous();
  for (int unit = blockIdx.x; unit < layers.units; unit += gridDim.x, parity ^= 1) {
    const MatvecLayer& a = layer_of(layers, unit);
    const int feature = (unit - a.first_unit) * kFeatures;
    float sums[kTiles][4] = {};
    Rows<kTiles> next_x = load_rows<kTiles>(a, 0, tokens);
    for (int pass = 0; pass * kPass < a.inputs; ++pass) {
      const Weights w = queue[0];
      const Rows<kTiles> x = next_x;
#pragma unroll
      for (int i = 0; i + 1 < kAhead; ++i) queue[i] = queue[i + 1];
      queue[kAhead - 1] = load_place(layers, ahead);
      ahead.advance(layers);
      next_x = load_rows<kTiles>(a, pass + 1, tokens);
      const unsigned first[4] = {w.low.x, w.high.x, w.low.y, w.high.y};
      const unsigned second[4] = {w.low.z, w.high.z, w.low.w, w.high.w};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const Floats<4>&low = x.low[n], &high = x.high[n];
        multiply<bf16>(sums[n], first, pack<bf16>(low.x[0], low.x[1]), pack<bf16>(low.x[2], low.x[3]));
        multiply<bf16>(sums[n], second, pack<bf16>(high.x[0], high.x[1]), pack<bf16>(high.x[2], high.x[3]));
      }
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e)  // features g, g + 8; tokens 2 t, 2 t + 1
        partial[parity][warp][n][(lane / 4 + e / 2 * 8) * kTokens + lane % 4 * 2 + e % 2] = sums[n][e];
    __syncthreads();
    for (int i = threadIdx.x; i < kTiles * kFeatures * kTokens; i += kThreads) {
      const int n = i / (kFeatures * kTokens), j = i % (kFeatures * kTokens);
      const int r = feature + j / kTokens, m = n * kTokens + j % kTokens;
      if (r >= a.features || m >= tokens) continue;
      float total = a.bias != nullptr ? a.bias[r] : 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += partial[parity][w][n][j];
      a.out[m * a.out_stride + r] = total;
      if (a.residual != nullptr) a.residual[m * a.residual_stride + r] += total;
    }
  }
}

}  // namespace

void matvec_mma(MatvecLayers layers, int tokens, CudaExec& exec) {
  layers.units = 0;
  for (int i = 0; i < layers.count; ++i) {
    layers.layer[i].first_unit = layers.units;
    layers.units += (layers.layer[i].features + kFeatures - 1) / kFeatures;
  }
  const LaunchShape shape{
      std::min(2u * static_cast<unsigned>(exec.multiprocessors()), static_cast<unsigned>(layers.units)),
      kThreads};
  launch(exec, "dense", tokens <= kTokens ? matvec_tiles<1> : matvec_tiles<2>, shape, layers, tokens);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
