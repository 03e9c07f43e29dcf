// SPDX-License-Identifier: Apache-2.0
// Dense layers of a few rows by tensor cores: bound by the memory that the bf16 weights are read from,
// whatever the number of rows, which are rounded to bf16.
#include "src/cuda/matvec.cuh"
#include "src/cuda/mma.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kHalf = 8;     // features of a tensor core's tile, whose other half is 8 rows further
constexpr int kTokens = 8;   // of a tensor core's tile
constexpr int kSlice = 32;   // inputs that a warp reads of a row at a time
constexpr int kVectors = 4;  // of 8 weights, of a thread in a pass
constexpr int kAhead = 4;    // passes whose weights are on their way
constexpr int kBlocks = 2;   // a multiprocessor

// What a block multiplies in a pass: weights of kHalves_ halves of features and of kSlices slices of each
// warp, with x of kTiles_ tiles of tokens.
template <int kHalves_, int kTiles_>
struct Pass {
  static constexpr int kHalves = kHalves_, kSlices = kVectors / kHalves, kTiles = kTiles_;
  static constexpr int kFeatures = kHalves * kHalf;  // of a unit
  static constexpr int kInputs = kWarps * kSlices * kSlice;
};

// A thread's way over the passes of its block's units; what it needs of a layer is in registers. Lane 4 g + t
// has 8 inputs from 8 t on: the order of inputs does not matter as long as weights and x have the same.
template <class P>
class Walk {
 public:
  __device__ bool inside() const { return inputs_ > 0; }
  __device__ bool last() const { return first_ + P::kInputs >= inputs_; }  // of the unit
  __device__ int unit() const { return unit_; }

 protected:
  __device__ static int lane_input() {
    return static_cast<int>(threadIdx.x) / kWarp * P::kSlices * kSlice +
           static_cast<int>(threadIdx.x) % 4 * 8;
  }
  __device__ static int lane_row() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
  __device__ bool has_slice(int s) const { return first_ + lane_input() + s * kSlice < inputs_; }
  // To the next pass; whether it is of another unit.
  __device__ bool step() {
    first_ += P::kInputs;
    if (first_ < inputs_) return false;
    first_ = 0, unit_ += gridDim.x;
    return true;
  }
  // The layer of the unit; null behind the last one.
  __device__ const MatvecLayer* enter(const MatvecLayers& all) {
    inputs_ = 0;
    if (unit_ >= all.units) return nullptr;
    const MatvecLayer& a = layer_of(all, unit_);
    inputs_ = a.inputs;
    return &a;
  }

 private:
  int unit_ = blockIdx.x;
  int first_ = 0, inputs_ = 0;  // of the pass, of the layer; 0 behind the last unit
};

// Weights come to shared memory, where a thread reads only what it has asked for itself: none waits for
// another.
template <class P>
class WeightWalk : public Walk<P> {
 public:
  using Slot = uint4[P::kSlices][P::kHalves][kThreads];
  __device__ explicit WeightWalk(const MatvecLayers& all)
      : from_(static_cast<const bf16*>(all.layer[0].weight)) {
    find(all);
  }
  // Asks for the weights of a pass and goes on to the next one.
  __device__ void request(const MatvecLayers& all, Slot& slot) {
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s)
#pragma unroll
      for (int h = 0; h < P::kHalves; ++h) {
        const bool there = this->has_slice(s) && h * kHalf < features_;
        copy_async_alone(&slot[s][h][threadIdx.x],
                         there ? from_ + s * kSlice + h * half_ : all.layer[0].weight, there);
      }
    commit_copies();
    if (!this->inside()) return;
    from_ += P::kInputs;
    if (this->step()) find(all);
  }

 private:
  __device__ void find(const MatvecLayers& all) {
    const MatvecLayer* const a = this->enter(all);
    if (a == nullptr) return;
    const int feature = (this->unit() - a->first_unit) * P::kFeatures + this->lane_row();
    from_ = static_cast<const bf16*>(a->weight) + feature * a->weight_stride + this->lane_input();
    half_ = kHalf * a->weight_stride, features_ = a->features - feature;
  }
  const bf16* from_;
  Index half_ = 0;
  int features_ = 0;  // from the lane's on
};

// A lane's inputs of one pass: 8 of token g of each tile.
template <class P>
struct Rows {
  Floats<4> low[P::kSlices][P::kTiles], high[P::kSlices][P::kTiles];
};

template <class P>
class RowWalk : public Walk<P> {
 public:
  __device__ RowWalk(const MatvecLayers& all, int tokens) : tokens_(tokens - this->lane_row()) { find(all); }
  __device__ Rows<P> rows() const {
    Rows<P> x{};
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s)
#pragma unroll
      for (int n = 0; n < P::kTiles; ++n) {
        if (!this->has_slice(s) || n * kTokens >= tokens_) continue;
        const float* const at = from_ + s * kSlice + n * tile_;
        x.low[s][n] = load<4>(at), x.high[s][n] = load<4>(at + 4);
      }
    return x;
  }
  __device__ void advance(const MatvecLayers& all) {
    if (!this->inside()) return;
    from_ += P::kInputs;
    if (this->step()) find(all);
  }

 private:
  __device__ void find(const MatvecLayers& all) {
    const MatvecLayer* const a = this->enter(all);
    if (a == nullptr) return;
    from_ = a->x + this->lane_row() * a->x_stride + this->lane_input();
    tile_ = kTokens * a->x_stride;
  }
  const float* from_ = nullptr;
  Index tile_ = 0;
  int tokens_;  // from the lane's on
};

template <class P>
using Sums = float[P::kHalves / 2][P::kTiles][4];

// A lane's 8 inputs of a slice go in two products of 16.
template <class P>
__device__ __forceinline__ void multiply_pass(const typename WeightWalk<P>::Slot& slot, const Rows<P>& x,
                                              Sums<P>& sums) {
#pragma unroll
  for (int s = 0; s < P::kSlices; ++s) {
    uint4 w[P::kHalves];
#pragma unroll
    for (int h = 0; h < P::kHalves; ++h) w[h] = slot[s][h][threadIdx.x];
#pragma unroll
    for (int n = 0; n < P::kTiles; ++n) {
      const Floats<4>&low = x.low[s][n], &high = x.high[s][n];
      const unsigned x0 = pack<bf16>(low.x[0], low.x[1]), x1 = pack<bf16>(low.x[2], low.x[3]),
                     x2 = pack<bf16>(high.x[0], high.x[1]), x3 = pack<bf16>(high.x[2], high.x[3]);
#pragma unroll
      for (int u = 0; u < P::kHalves / 2; ++u) {
        const uint4 &a = w[2 * u], &b = w[2 * u + 1];
        const unsigned first[4] = {a.x, b.x, a.y, b.y}, second[4] = {a.z, b.z, a.w, b.w};
        multiply<bf16>(sums[u][n], first, x0, x1);
        multiply<bf16>(sums[u][n], second, x2, x3);
      }
    }
  }
}

// The sums of a unit over the warps, written; begins again from zero.
template <class P>
__device__ __forceinline__ void finish_unit(const MatvecLayers& all, int unit, int tokens, Sums<P>& sums,
                                            float (&partial)[kWarps][P::kTiles * kTokens][P::kFeatures]) {
  const MatvecLayer& a = layer_of(all, unit);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
  for (int u = 0; u < P::kHalves / 2; ++u)
#pragma unroll
    for (int n = 0; n < P::kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {  // features g, g + 8; tokens 2 t, 2 t + 1
        partial[warp][n * kTokens + lane % 4 * 2 + e % 2][(2 * u + e / 2) * kHalf + lane / 4] = sums[u][n][e];
        sums[u][n][e] = 0;
      }
  __syncthreads();
  for (int i = threadIdx.x; i < P::kTiles * kTokens * P::kFeatures; i += kThreads) {
    const int m = i / P::kFeatures, j = i % P::kFeatures, r = (unit - a.first_unit) * P::kFeatures + j;
    if (r >= a.features || m >= tokens) continue;
    float total = a.bias != nullptr ? a.bias[r] : 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += partial[w][m][j];
    a.out[m * a.out_stride + r] = total;
    if (a.residual != nullptr) a.residual[m * a.residual_stride + r] += total;
  }
}

// Two passes a turn, so that the x of each has registers of its own: moving what is being loaded would wait
// for it.
template <class P>
__global__ void __launch_bounds__(kThreads, kBlocks)
    matvec_tiles(const __grid_constant__ MatvecLayers layers, int tokens) {
  extern __shared__ uint4 dynamic[];
  __shared__ float partial[2][kWarps][P::kTiles * kTokens][P::kFeatures];
  auto* const slots = reinterpret_cast<typename WeightWalk<P>::Slot*>(dynamic);
  WeightWalk<P> weights(layers);
  for (int i = 0; i < kAhead; ++i) weights.request(layers, slots[i]);
  let_next_start();
  wait_for_previous();
  RowWalk<P> next(layers, tokens);
  Rows<P> x[2] = {next.rows()};
  Sums<P> sums = {};
  int parity = 0;
  static_assert(kAhead % 2 == 0);
  for (int slot = 0; next.inside(); slot = (slot + 2) % kAhead) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!next.inside()) break;
      const int unit = next.unit();
      const bool last = next.last();
      next.advance(layers);
      x[1 - i] = next.rows();
      wait_for_copies<kAhead - 1>();
      multiply_pass<P>(slots[slot + i], x[i], sums);
      weights.request(layers, slots[slot + i]);
      if (last) finish_unit<P>(layers, unit, tokens, sums, partial[parity]), parity ^= 1;
    }
  }
}

template <class P>
void divide(MatvecLayers& layers) {
  layers.units = 0;
  for (int i = 0; i < layers.count; ++i) {
    layers.layer[i].first_unit = layers.units;
    layers.units += (layers.layer[i].features + P::kFeatures - 1) / P::kFeatures;
  }
}

template <class P>
void run(MatvecLayers& layers, int tokens, CudaExec& exec) {
  divide<P>(layers);
  const int grid = std::min(kBlocks * exec.multiprocessors(), layers.units);
  launch(exec, "dense", matvec_tiles<P>,
         {static_cast<unsigned>(grid), kThreads, kAhead * sizeof(typename WeightWalk<P>::Slot)}, layers,
         tokens);
}

}  // namespace

// Wide units read x less often; where they are too few, units are narrow and rows go in longer pieces.
void matvec_mma(MatvecLayers layers, int tokens, CudaExec& exec) {
  divide<Pass<4, 1>>(layers);
  const bool wide = layers.units > kBlocks * exec.multiprocessors();
  if (tokens <= kTokens)
    wide ? run<Pass<4, 1>>(layers, tokens, exec) : run<Pass<2, 1>>(layers, tokens, exec);
  else
    wide ? run<Pass<4, 2>>(layers, tokens, exec) : run<Pass<2, 2>>(layers, tokens, exec);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
