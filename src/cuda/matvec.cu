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

// Weights of a unit's rows, of the kSteps slices of inputs from `from` on.
template <class T, int kFeatures, int kSteps>
__device__ __forceinline__ void load_unit(const MatvecLayer& a, int feature, int from,
                                          uint4 (&w)[kSteps][kFeatures]) {
  constexpr int kEach = Unpack<T>::kCount, kSlice = kThreads * kEach;
#pragma unroll
  for (int s = 0; s < kSteps; ++s)
#pragma unroll
    for (int r = 0; r < kFeatures; ++r) {
      const int k = from + s * kSlice + static_cast<int>(threadIdx.x) * kEach;
      w[s][r] = k < a.inputs && feature + r < a.features
                    ? load_weights(static_cast<const T*>(a.weight) + (feature + r) * a.weight_stride + k)
                    : uint4{0, 0, 0, 0};
    }
}

// A block goes over units, a unit's inputs by slices of the whole block, and reads the next weights before it
// multiplies with the ones that it has: of the first unit before the kernel before this one is through.
template <class T, int kTokens, int kFeatures, int kSteps, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) matvec_units(const MatvecLayers layers, int tokens) {
  constexpr int kEach = Unpack<T>::kCount, kPass = kSteps * kThreads * kEach;
  __shared__ float partial[2][kWarps][kFeatures * kTokens];
  int unit = blockIdx.x, parity = 0;
  uint4 next[kSteps][kFeatures];
  if (unit < layers.units) {
    const MatvecLayer& a = layer_of(layers, unit);
    load_unit<T, kFeatures, kSteps>(a, (unit - a.first_unit) * kFeatures, 0, next);
  }
  let_next_start();
  wait_for_previous();
  for (; unit < layers.units; unit += gridDim.x, parity ^= 1) {
    const MatvecLayer& a = layer_of(layers, unit);
    const int feature = (unit - a.first_unit) * kFeatures;
    float sums[kFeatures * kTokens] = {};
    for (int from = 0; from < a.inputs; from += kPass) {
      uint4 now[kSteps][kFeatures];
#pragma unroll
      for (int s = 0; s < kSteps; ++s)
#pragma unroll
        for (int r = 0; r < kFeatures; ++r) now[s][r] = next[s][r];
      if (from + kPass < a.inputs) {
        load_unit<T, kFeatures, kSteps>(a, feature, from + kPass, next);
      } else if (unit + gridDim.x < layers.units) {
        const MatvecLayer& b = layer_of(layers, unit + gridDim.x);
        load_unit<T, kFeatures, kSteps>(b, (unit + static_cast<int>(gridDim.x) - b.first_unit) * kFeatures, 0,
                                        next);
      }
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const int k = from + (s * kThreads + static_cast<int>(threadIdx.x)) * kEach;
        if (k >= a.inputs) break;
        float w[kFeatures][kEach];
#pragma unroll
        for (int r = 0; r < kFeatures; ++r) Unpack<T>::run(now[s][r], w[r]);
#pragma unroll
        for (int m = 0; m < kTokens; ++m) {
          if (m >= tokens) break;
          const float* const at = a.x + m * a.x_stride + k;
#pragma unroll
          for (int i = 0; i < kEach; i += 4) {
            const auto x = load<4>(at + i);
#pragma unroll
            for (int r = 0; r < kFeatures; ++r)
#pragma unroll
              for (int j = 0; j < 4; ++j)
                sums[r * kTokens + m] = fmaf(w[r][i + j], x.x[j], sums[r * kTokens + m]);
          }
        }
      }
    }
    constexpr int kCount = kFeatures * kTokens, kShare = kWarp / kCount;
    const int lane = threadIdx.x % kWarp;
    const float sum = reduce_scatter<kCount>(sums);
    if (lane % kShare == 0) partial[parity][threadIdx.x / kWarp][lane / kShare] = sum;
    __syncthreads();
    if (threadIdx.x < kCount) {
      const int r = feature + static_cast<int>(threadIdx.x) / kTokens, m = threadIdx.x % kTokens;
      if (r < a.features && m < tokens) {
        float total = a.bias != nullptr ? a.bias[r] : 0.0f;
        for (int i = 0; i < kWarps; ++i) total += partial[parity][i][threadIdx.x];
        a.out[m * a.out_stride + r] = total;
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
    if (lane == 0) a.out[m * a.out_stride + r] = sum + (a.bias != nullptr ? a.bias[r] : 0.0f);
  }
}

MatvecLayer layer_of(const DeviceDense& d) {
  const AnyView<2>& w = d.weight.values();
  return {w.data,
          d.bias.data,
          d.x.data,
          d.out.data,
          w.strides[0],
          d.x.strides[0],
          d.out.strides[0],
          static_cast<int>(w.shape[0]),
          static_cast<int>(w.shape[1]),
          0};
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

template <class T>
bool by_vectors(const DeviceDense& d) {
  const AnyView<2>& w = d.weight.values();
  constexpr Index kEach = Unpack<T>::kCount;
  return aligned(w.data) && aligned(d.x.data) && w.shape[1] % kEach == 0 && w.strides[0] % kEach == 0 &&
         (d.x.shape[0] == 1 || d.x.strides[0] % 4 == 0);
}

template <class T>
void run(std::span<const DeviceDense> layers, CudaExec& exec) {
  const int tokens = static_cast<int>(layers[0].x.shape[0]);
  MatvecLayers all{};
  auto flush = [&] {
    if (all.count == 0) return;
    if (std::is_same_v<T, bf16> && exec.precision() == Precision::fast && tokens >= kFewestMmaRows) {
      matvec_mma(all, tokens, exec);
      all = MatvecLayers{};
      return;
    }
    static const int variant = getenv("MV") ? atoi(getenv("MV")) : 0;
    auto go = [&](void (*kernel)(MatvecLayers, int), int features, int per) {
      all.units = 0;
      for (int i = 0; i < all.count; ++i) {
        all.layer[i].first_unit = all.units;
        all.units += (all.layer[i].features + features - 1) / features;
      }
      const LaunchShape shape{
          std::min(static_cast<unsigned>(per * exec.multiprocessors()), static_cast<unsigned>(all.units)),
          kThreads};
      launch(exec, "dense", kernel, shape, all, tokens);
    };
    if (tokens == 1) {
      switch (variant) {
        case 0: go(matvec_units<T, 1, 4, 2, 2>, 4, 2); break;
        case 1: go(matvec_units<T, 1, 4, 2, 2>, 4, 3); break;
        case 2: go(matvec_units<T, 1, 2, 4, 2>, 2, 2); break;
        case 3: go(matvec_units<T, 1, 2, 2, 4>, 2, 4); break;
        case 4: go(matvec_units<T, 1, 4, 1, 4>, 4, 4); break;
        case 5: go(matvec_units<T, 1, 2, 2, 3>, 2, 3); break;
        case 6: go(matvec_units<T, 1, 8, 1, 2>, 8, 2); break;
        case 7: go(matvec_units<T, 1, 4, 1, 3>, 4, 3); break;
      }
    } else if (tokens == 2)
      go(matvec_units<T, 2, 4, 2, 2>, 4, 2);
    else if (tokens <= 4)
      go(matvec_units<T, 4, 4, 1, 2>, 4, 2);
    else
      go(matvec_units<T, 8, 4, 1, 2>, 4, 2);
    all = MatvecLayers{};
  };
  for (const DeviceDense& d : layers) {
    MatvecLayer layer = layer_of(d);
    if (!by_vectors<T>(d)) {
      launch(exec, "dense", matvec_any<T>, {blocks(layer.features, kWarps), kThreads}, layer, tokens);
      continue;
    }
    if (all.count == kMostLayers) flush();
    all.layer[all.count++] = layer;
  }
  flush();
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
      const DeviceDense part{a.x.slice(0, t, end), a.weight, a.bias, a.out.slice(0, t, end), a.phase};
      is_bf16 ? run<bf16>(std::span(&part, 1), exec) : run<float>(std::span(&part, 1), exec);
    }
  }
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
