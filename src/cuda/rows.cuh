// SPDX-License-Identifier: Apache-2.0
// What kernels that go over rows share.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "ashlar/core/dtype.hpp"
#include "ashlar/ops/activation.hpp"
#include "src/cuda/launch.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {

constexpr int kWarp = 32;

// Elements in one access of a thread.
template <int N>
struct alignas(N * 4) Floats {
  float x[N];
};
template <int N>
__device__ __forceinline__ Floats<N> load(const float* p) {
  return *reinterpret_cast<const Floats<N>*>(p);
}
template <int N>
__device__ __forceinline__ void store(float* p, const Floats<N>& v) {
  *reinterpret_cast<Floats<N>*>(p) = v;
}
template <int N>
__device__ __forceinline__ void store(bf16* p, const Floats<N>& v) {
  if constexpr (N == 4) {
    const __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(v.x[0], v.x[1]),
                                    __floats2bfloat162_rn(v.x[2], v.x[3])};
    *reinterpret_cast<uint2*>(p) = *reinterpret_cast<const uint2*>(pair);
  } else {
    for (int i = 0; i < N; ++i) reinterpret_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(v.x[i]);
  }
}
template <int N>
__device__ __forceinline__ Floats<N> load(const bf16* p) {
  Floats<N> v;
  if constexpr (N == 4) {
    const uint2 bits = *reinterpret_cast<const uint2*>(p);
    v.x[0] = __uint_as_float(bits.x << 16), v.x[1] = __uint_as_float(bits.x & 0xffff0000u);
    v.x[2] = __uint_as_float(bits.y << 16), v.x[3] = __uint_as_float(bits.y & 0xffff0000u);
  } else {
    for (int i = 0; i < N; ++i) v.x[i] = __uint_as_float(static_cast<unsigned>(p[i].bits) << 16);
  }
  return v;
}
template <int N>
__device__ __forceinline__ Floats<N> load(const f16* p) {
  Floats<N> v;
  for (int i = 0; i < N; ++i) v.x[i] = __half2float(reinterpret_cast<const __half*>(p)[i]);
  return v;
}

// Towards the second cache; needs no wait_for_previous().
__device__ __forceinline__ void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

__device__ __forceinline__ float sum_of_warp(float x) {
  for (int d = kWarp / 2; d > 0; d /= 2) x += __shfl_xor_sync(~0u, x, d);
  return x;
}
__device__ __forceinline__ float max_of_warp(float x) {
  for (int d = kWarp / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
  return x;
}

// The sum over a group of kThreads neighbouring threads: a warp, or the whole block, whose `partial` has a
// float a warp.
template <int kThreads>
__device__ __forceinline__ float sum_of_group(float x, float* partial) {
  x = sum_of_warp(x);
  if constexpr (kThreads > kWarp) {
    __syncthreads();
    if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = sum_of_warp(threadIdx.x % kWarp < kThreads / kWarp ? partial[threadIdx.x % kWarp] : 0.0f);
  }
  return x;
}

__device__ __forceinline__ float sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x >= 0 ? 1.0f : e) / (1.0f + e);
}
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

// Activation (ops/activation.hpp) of one element.
__device__ __forceinline__ float activation_of(Activation f, float x, float negative_slope = kNegativeSlope) {
  switch (f) {
    case Activation::identity: return x;
    case Activation::silu: return x < -100.0f ? 0.0f : x * sigmoid(x);
    case Activation::sigmoid: return sigmoid(x);
    case Activation::relu: return x < 0 ? 0.0f : x;
    case Activation::relu2: return x < 0 ? 0.0f : x * x;
    case Activation::tanh: return tanhf(x);
    case Activation::gelu: return x < -100.0f ? 0.0f : x * normcdff(x);
    case Activation::gelu_tanh:
      return x < -100.0f ? 0.0f : x * sigmoid(x * fmaf(x * x, 0.0713548162726f, 1.59576912160573f));
    case Activation::softplus: return softplus(x);
    case Activation::elu1: return x < 0 ? expf(x) : x + 1.0f;
    case Activation::relu6: return x < 0 ? 0.0f : x > 6 ? 6.0f : x;
    case Activation::hardsigmoid: {
      const float y = x + 3;
      return (y < 0 ? 0.0f : y > 6 ? 6.0f : y) / 6.0f;
    }
    case Activation::hardswish: {
      const float y = x + 3;
      return x < -3 ? 0.0f : x * (y > 6 ? 6.0f : y) / 6.0f;
    }
    case Activation::leaky_relu: return x < 0 ? x * negative_slope : x;
  }
  return x;
}

// Whether rows of these views can be read by 16 bytes (f32) or 8 (16-bit): addresses and row strides.
template <class T, int Rank>
bool by_four(const View<T, Rank>& v) {
  if (!v) return true;
  constexpr Index kBytes = 4 * static_cast<Index>(sizeof(T));
  if (reinterpret_cast<std::uintptr_t>(v.data) % kBytes != 0) return false;
  for (int i = 0; i + 1 < Rank; ++i)
    if (v.shape[i] > 1 && v.strides[i] % 4 != 0) return false;
  return v.shape[Rank - 1] % 4 == 0;
}

inline unsigned blocks(Index n, Index per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
