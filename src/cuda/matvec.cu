// SPDX-License-Identifier: Apache-2.0
// Dense layers of few rows: bound by the memory that weights are read from.
#include "src/cuda/matvec.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kFewestMmaRows = 3;

template <class T>
struct Unpack;
template <>
struct Unpack<float> {
  static constexpr int kCount = 4;
  static __device__ __forceinline__ void run(const uint4& v, float* w) {
    w[0] = __uint_as_float(v.x), w[1] = __uint_as_float(v.y);
    w[2] = __uint_as_float(v.z), w[3] = __uint_as_float(v.w);
  }
};
template <>
struct Unpack<bf16> {
  static constexpr int kCount = 8;
  static __device__ __forceinline__ void run(const uint4& v, float* w) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; ++i) {
      w[2 * i] = __uint_as_float(words[i] << 16);
      w[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
};

// The sums over a warp of kCount values, a power of two: lane l is left with that of value l kCount / 32.
template <int kCount>
__device__ __forceinline__ float reduce_scatter(float (&v)[kCount]) {
  const int lane = threadIdx.x % kWarp;
  int d = kWarp / 2;
#pragma unroll
  for (int n = kCount / 2; n > 0; n /= 2, d /= 2) {
    const bool upper = lane & d;
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const float send = upper ? v[i] : v[i + n], keep = upper ? v[i + n] : v[i];
      v[i] = keep + __shfl_xor_sync(~0u, send, d);
    }
  }
  for (; d > 0; d /= 2) v[0] += __shfl_xor_sync(~0u, v[0], d);
  return v[0];
}

// A unit's rows of weights are kRows features of one matrix, or of a gated layer half as many of each of its
// two.
template <int kRows, bool kGated>
struct Unit {
  static constexpr int kFeatures = kGated ? kRows / 2 : kRows;
  const MatvecLayer& layer;
  int feature;

  __device__ Unit(const MatvecLayers& all, int unit)
      : layer(layer_of(all, unit)), feature((unit - layer.first_unit) * kFeatures) {}
};

// Weights of a unit's rows, of the kSteps slices of inputs from `from` on.
template <class T, int kRows, int kSteps, bool kGated>
__device__ __forceinline__ void load_unit(const Unit<kRows, kGated>& unit, int from,
                                          uint4 (&w)[kSteps][kRows]) {
  constexpr int kEach = Unpack<T>::kCount, kSlice = kThreads * kEach,
                kFeatures = Unit<kRows, kGated>::kFeatures;
  const MatvecLayer& a = unit.layer;
#pragma unroll
  for (int s = 0; s < kSteps; ++s)
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int k = from + s * kSlice + static_cast<int>(threadIdx.x) * kEach,
                row = unit.feature + r % kFeatures;
      const T* const matrix = static_cast<const T*>(r < kFeatures ? a.weight : a.up);
      w[s][r] = k < a.inputs && row < a.features ? load_weights(matrix + row * a.weight_stride + k)
                                                 : uint4{0, 0, 0, 0};
    }
}

// A block goes over units, a unit's inputs by slices of the whole block, and reads the next weights before it
// multiplies with the ones that it has: of the first unit before the kernel before this one is through.
template <class T, int kTokens, int kRows, int kSteps, int kBlocks, bool kGated>
__global__ void __launch_bounds__(kThreads, kBlocks) matvec_units(const MatvecLayers layers, int tokens) {
  using U = Unit<kRows, kGated>;
  constexpr int kEach = Unpack<T>::kCount, kPass = kSteps * kThreads * kEach;
  constexpr int kCount = kRows * kTokens, kShare = kWarp / kCount;
  __shared__ float partial[2][kWarps][kCount];
  int unit = blockIdx.x, parity = 0;
  uint4 next[kSteps][kRows];
  if (unit < layers.units) load_unit<T>(U(layers, unit), 0, next);
  let_next_start();
  wait_for_previous();
  for (; unit < layers.units; unit += gridDim.x, parity ^= 1) {
    const U here(layers, unit);
    const MatvecLayer& a = here.layer;
    float sums[kCount] = {};
    for (int from = 0; from < a.inputs; from += kPass) {
      uint4 now[kSteps][kRows];
#pragma unroll
      for (int s = 0; s < kSteps; ++s)
#pragma unroll
        for (int r = 0; r < kRows; ++r) now[s][r] = next[s][r];
      if (from + kPass < a.inputs)
        load_unit<T>(here, from + kPass, next);
      else if (unit + gridDim.x < layers.units)
        load_unit<T>(U(layers, unit + static_cast<int>(gridDim.x)), 0, next);
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const int k = from + (s * kThreads + static_cast<int>(threadIdx.x)) * kEach;
        if (k >= a.inputs) break;
        float w[kRows][kEach];
#pragma unroll
        for (int r = 0; r < kRows; ++r) Unpack<T>::run(now[s][r], w[r]);
#pragma unroll
        for (int m = 0; m < kTokens; ++m) {
          if (m >= tokens) break;
          const float* const at = a.x + m * a.x_stride + k;
#pragma unroll
          for (int i = 0; i < kEach; i += 4) {
            const auto x = load<4>(at + i);
#pragma unroll
            for (int r = 0; r < kRows; ++r)
#pragma unroll
              for (int j = 0; j < 4; ++j)
                sums[r * kTokens + m] = fmaf(w[r][i + j], x.x[j], sums[r * kTokens + m]);
          }
        }
      }
    }
    const int lane = threadIdx.x % kWarp;
    const float sum = reduce_scatter<kCount>(sums);
    if (lane % kShare == 0) partial[parity][threadIdx.x / kWarp][lane / kShare] = sum;
    __syncthreads();
    if (threadIdx.x < U::kFeatures * kTokens) {
      const int r = here.feature + static_cast<int>(threadIdx.x) / kTokens, m = threadIdx.x % kTokens;
      auto total = [&](const float* bias, int at) {
        float t = bias != nullptr ? bias[r] : 0.0f;
#pragma unroll
        for (int i = 0; i < kWarps; ++i) t += partial[parity][i][at];
        return t;
      };
      if (r < a.features && m < tokens) {
        float y = total(a.bias, threadIdx.x);
        if constexpr (kGated)
          y = activation_of(a.activation, y) * total(a.up_bias, U::kFeatures * kTokens + threadIdx.x);
        a.out[m * a.out_stride + r] = y;
        if (a.residual != nullptr) a.residual[m * a.residual_stride + r] += y;
      }
    }
  }
}

// Any shape and alignment: an output feature a warp.
template <class T>
__global__ void __launch_bounds__(kThreads) matvec_any(const MatvecLayer a, int tokens) {
  let_next_start();
  wait_for_previous();
  const int r = blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (r >= a.features) return;
  const T* w = static_cast<const T*>(a.weight) + r * a.weight_stride;
  for (int m = 0; m < tokens; ++m) {
    float sum = 0;
    for (int k = lane; k < a.inputs; k += kWarp)
      sum = fmaf(load<1>(w + k).x[0], a.x[m * a.x_stride + k], sum);
    sum = sum_of_warp(sum);
    if (lane != 0) continue;
    sum += a.bias != nullptr ? a.bias[r] : 0.0f;
    a.out[m * a.out_stride + r] = sum;
    if (a.residual != nullptr) a.residual[m * a.residual_stride + r] += sum;
  }
}

MatvecLayer layer_of(const DeviceDense& d) {
  const AnyView<2>& w = d.weight.values();
  MatvecLayer layer{w.data,       d.bias.data,    d.x.data,        d.out.data,
                    w.strides[0], d.x.strides[0], d.out.strides[0]};
  layer.features = static_cast<int>(w.shape[0]), layer.inputs = static_cast<int>(w.shape[1]);
  layer.residual = d.residual.data, layer.residual_stride = d.residual.strides[0];
  return layer;
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

template <class T>
bool by_vectors(const DeviceDense& d) {
  const AnyView<2>& w = d.weight.values();
  constexpr Index kEach = Unpack<T>::kCount;
  return aligned(w.data) && aligned(d.x.data) && w.shape[1] % kEach == 0 && w.strides[0] % kEach == 0 &&
         (d.x.shape[0] == 1 || d.x.strides[0] % 4 == 0);
}

using Kernel = void (*)(MatvecLayers, int);

// Units of so many features for kBlocks blocks a multiprocessor.
void launch_units(MatvecLayers& all, int tokens, int features, int blocks, Kernel kernel, CudaExec& exec) {
  all.units = 0;
  for (int i = 0; i < all.count; ++i) {
    all.layer[i].first_unit = all.units;
    all.units += (all.layer[i].features + features - 1) / features;
  }
  const int grid = std::min(blocks * exec.multiprocessors(), all.units);
  launch(exec, "dense", kernel, {static_cast<unsigned>(grid), kThreads}, all, tokens);
}

template <class T>
void launch_layers(MatvecLayers& all, int tokens, CudaExec& exec) {
  if (all.count == 0) return;
  if (std::is_same_v<T, bf16> && exec.precision() == Precision::fast && tokens >= kFewestMmaRows)
    matvec_mma(all, tokens, exec);
  else if (tokens == 1)
    launch_units(all, tokens, 4, 4, matvec_units<T, 1, 4, 1, 4, false>, exec);
  else if (tokens == 2)
    launch_units(all, tokens, 4, 2, matvec_units<T, 2, 4, 2, 2, false>, exec);
  else if (tokens <= 4)
    launch_units(all, tokens, 4, 2, matvec_units<T, 4, 4, 1, 2, false>, exec);
  else
    launch_units(all, tokens, 4, 2, matvec_units<T, 8, 4, 1, 2, false>, exec);
  all = MatvecLayers{};
}

template <class T>
void run(std::span<const DeviceDense> layers, CudaExec& exec) {
  const int tokens = static_cast<int>(layers[0].x.shape[0]);
  MatvecLayers all{};
  for (const DeviceDense& d : layers) {
    const MatvecLayer layer = layer_of(d);
    if (!by_vectors<T>(d)) {
      launch(exec, "dense", matvec_any<T>, {blocks(layer.features, kWarps), kThreads}, layer, tokens);
      continue;
    }
    if (all.count == kMostLayers) launch_layers<T>(all, tokens, exec);
    all.layer[all.count++] = layer;
  }
  launch_layers<T>(all, tokens, exec);
}

__global__ void __launch_bounds__(kThreads) split_elements(View<const float, 2> x, View<bf16, 3> to) {
  let_next_start();
  wait_for_previous();
  const Index columns = x.shape[1], all = x.shape[0] * columns;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreads) {
    float rest = x.data[i / columns * x.strides[0] + i % columns];
    for (Index part = 0; part < to.shape[0]; ++part) {
      const __nv_bfloat16 rounded = __float2bfloat16_rn(rest);
      reinterpret_cast<__nv_bfloat16*>(
          to.data)[part * to.strides[0] + i / columns * to.strides[1] + i % columns] = rounded;
      rest -= __bfloat162float(rounded);
    }
  }
}

__global__ void __launch_bounds__(kThreads) round_elements(View<const float, 2> x, View<bf16, 3> to) {
  let_next_start();
  wait_for_previous();
  const Index groups = x.shape[1] / 4, all = x.shape[0] * groups;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreads) {
    const Index t = i / groups, c = i % groups * 4;
    store<4>(to.data + t * to.strides[1] + c, load<4>(x.data + t * x.strides[0] + c));
  }
}

__global__ void __launch_bounds__(kThreads) bias_elements(View<const float, 1> bias, View<float, 2> out) {
  let_next_start();
  wait_for_previous();
  const Index columns = out.shape[1], all = out.shape[0] * columns;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreads)
    out.data[i / columns * out.strides[0] + i % columns] += bias.data[i % columns];
}

LaunchShape shape_for(const CudaExec& exec, Index items) {
  return {std::min(static_cast<unsigned>(exec.multiprocessors()) * 8, blocks(items, kThreads)), kThreads};
}

}  // namespace

void matvec(std::span<const DeviceDense> layers, CudaExec& exec) {
  const bool is_bf16 = layers[0].weight.values().dtype == DType::bf16;
  const Index tokens = layers[0].x.shape[0];
  constexpr Index kRows = 8;  // that weights are read once for
  if (tokens <= kRows || (is_bf16 && exec.precision() == Precision::fast))
    return is_bf16 ? run<bf16>(layers, exec) : run<float>(layers, exec);
  for (Index t = 0; t < tokens; t += kRows) {
    const Index end = std::min(tokens, t + kRows);
    for (const DeviceDense& a : layers) {
      const DeviceDense part{a.x.slice(0, t, end),
                             a.weight,
                             a.bias,
                             a.out.slice(0, t, end),
                             a.phase,
                             false,
                             a.residual ? a.residual.slice(0, t, end) : a.residual};
      is_bf16 ? run<bf16>(std::span(&part, 1), exec) : run<float>(std::span(&part, 1), exec);
    }
  }
}

bool gated_matvec(const DeviceDense& gate, const DeviceDense& up, Activation activation, CudaExec& exec) {
  const bool one = gate.x.shape[0] == 1, is_bf16 = gate.weight.values().dtype == DType::bf16;
  const AnyView<2>&w = gate.weight.values(), &u = up.weight.values();
  if (!one || w.dtype != u.dtype || w.strides[0] != u.strides[0] || !aligned(u.data)) return false;
  if (is_bf16 ? !by_vectors<bf16>(gate) : !by_vectors<float>(gate)) return false;
  MatvecLayers all{};
  all.count = 1, all.layer[0] = layer_of(gate);
  all.layer[0].up = u.data, all.layer[0].up_bias = up.bias.data, all.layer[0].activation = activation;
  if (is_bf16)
    launch_units(all, 1, 2, 4, matvec_units<bf16, 1, 4, 1, 4, true>, exec);
  else
    launch_units(all, 1, 2, 4, matvec_units<float, 1, 4, 1, 4, true>, exec);
  return true;
}

void split_to_bf16(View<const float, 2> x, View<bf16, 3> to, CudaExec& exec) {
  if (to.shape[0] == 1 && by_four(x) && by_four(to))
    launch(exec, "dense", round_elements, shape_for(exec, x.size() / 4), x, to);
  else
    launch(exec, "dense", split_elements, shape_for(exec, x.size()), x, to);
}

void add_bias(View<const float, 1> bias, View<float, 2> out, CudaExec& exec) {
  launch(exec, "dense", bias_elements, shape_for(exec, out.size()), bias, out);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
