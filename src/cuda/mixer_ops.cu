// SPDX-License-Identifier: Apache-2.0
// Ops around the recurrences of decoders: scale_heads, dpfp, hedgehog, and what RWKV-7 does to each token.
#include "ashlar/cuda/ops.hpp"
#include "src/core/mixer_checks.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// f(t, h, i) for each element of [T, H, D].
template <class F>
__device__ __forceinline__ void each_element(const std::array<Index, 3>& shape, F&& f) {
  const Index all = shape[0] * shape[1] * shape[2];
  for (Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; at < all;
       at += static_cast<Index>(gridDim.x) * kThreads) {
    const Index row = at / shape[2];
    f(row / shape[1], row % shape[1], at % shape[2]);
  }
}
// f(t, h) for each row of [T, H], by a warp.
template <class F>
__device__ __forceinline__ void each_row(Index tokens, Index heads, F&& f) {
  constexpr int kWarps = kThreads / kWarp;
  for (Index row = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / kWarp; row < tokens * heads;
       row += static_cast<Index>(gridDim.x) * kWarps)
    f(row / heads, row % heads);
}

template <class T, int Rank>
__device__ __forceinline__ T* at(const View<T, Rank>& v, Index t, Index h) {
  return v.data + t * v.strides[0] + h * v.strides[1];
}

LaunchShape shape_for(const CudaExec& exec, Index n, Index a_block) {
  return {std::min(static_cast<unsigned>(exec.multiprocessors()) * 8, blocks(n, a_block)), kThreads};
}
LaunchShape elements(const CudaExec& exec, Index n) { return shape_for(exec, n, kThreads); }
LaunchShape rows(const CudaExec& exec, Index n) { return shape_for(exec, n, kThreads / kWarp); }

__global__ void __launch_bounds__(kThreads) scale_elements(const ScaleHeads a) {
  let_next_start();
  wait_for_previous();
  const Index share = a.out.shape[1] / a.x.shape[1];
  const bool per_channel = a.scale.shape[2] != 1;
  each_element(a.out.shape, [&](Index t, Index h, Index i) {
    const float x = at(a.x, t, h / share)[i], scale = at(a.scale, t, h)[per_channel ? i : 0];
    at(a.out, t, h)[i] = a.add.data != nullptr ? fmaf(scale, x, at(a.add, t, h)[i]) : scale * x;
  });
}

__global__ void __launch_bounds__(kThreads) dpfp_elements(const Dpfp a) {
  let_next_start();
  wait_for_previous();
  const Index dim = a.x.shape[2], wide = 2 * dim;
  each_element(a.out.shape, [&](Index t, Index h, Index i) {
    const float* x = at(a.x, t, h);
    auto r = [&](Index c) { return c < dim ? fmaxf(x[c], 0.0f) : -fmaxf(x[c - dim], 0.0f); };
    const Index c = i % wide, back = (i / wide + 1) % wide;
    at(a.out, t, h)[i] = r(c) * r(c >= back ? c - back : c - back + wide);
  });
}

__global__ void __launch_bounds__(kThreads) hedgehog_rows(const Hedgehog a) {
  let_next_start();
  wait_for_previous();
  const int lane = threadIdx.x % kWarp, dim = static_cast<int>(a.x.shape[2]);
  each_row(a.x.shape[0], a.x.shape[1], [&](Index t, Index h) {
    const float* x = at(a.x, t, h);
    float* const out = at(a.out, t, h);
    float most = 0, total = 0;
    for (int i = lane; i < dim; i += kWarp) most = fmaxf(most, fabsf(a.scale * x[i]));
    most = max_of_warp(most);
    for (int i = lane; i < dim; i += kWarp) {
      const float y = a.scale * x[i];
      total += out[i] = expf(y - most);
      total += out[dim + i] = expf(-y - most);
    }
    const float inverse = 1 / sum_of_warp(total);
    for (int i = lane; i < dim; i += kWarp) out[i] *= inverse, out[dim + i] *= inverse;
  });
}

__global__ void __launch_bounds__(kThreads) rwkv7_value_elements(const Rwkv7Values a) {
  let_next_start();
  wait_for_previous();
  each_element({a.v.shape[0], 1, a.v.shape[1]}, [&](Index t, Index, Index i) {
    const float v = a.v.data[t * a.v.strides[0] + i];
    const float share = sigmoid(a.gate.data[t * a.gate.strides[0] + i]);
    a.out.data[t * a.out.strides[0] + i] = fmaf(share, a.first.data[t * a.first.strides[0] + i] - v, v);
  });
}

__global__ void __launch_bounds__(kThreads) rwkv7_key_rows(const Rwkv7Keys a) {
  let_next_start();
  wait_for_previous();
  const int lane = threadIdx.x % kWarp, dim = static_cast<int>(a.k.shape[2]);
  each_row(a.k.shape[0], a.k.shape[1], [&](Index t, Index h) {
    const float *const k = at(a.k, t, h), *const gate = at(a.gate, t, h);
    const float *const k_k = a.k_k.data + h * a.k_k.strides[0], *const k_a =
                                                                    a.k_a.data + h * a.k_a.strides[0];
    float *const key = at(a.key, t, h), *const out_a = at(a.a, t, h), *const out_b = at(a.b, t, h);
    float squares = 0;
    for (int i = lane; i < dim; i += kWarp) {
      const float kk = k[i] * k_k[i];
      squares = fmaf(kk, kk, squares);
    }
    const float scale = 1 / sqrtf(sum_of_warp(squares) + a.eps);
    for (int i = lane; i < dim; i += kWarp) {  // everything of a channel is read before it is written
      const float mine = k[i], kk = mine * k_k[i] * scale, eta = sigmoid(gate[i]);
      const float factor = fmaf(eta - 1, k_a[i], 1.0f);
      out_a[i] = -kk, out_b[i] = kk * eta, key[i] = mine * factor;
    }
  });
}

__global__ void __launch_bounds__(kThreads) rwkv7_output_rows(const Rwkv7Output a) {
  let_next_start();
  wait_for_previous();
  const int lane = threadIdx.x % kWarp, dim = static_cast<int>(a.r.shape[2]),
            values = static_cast<int>(a.x.shape[2]);
  each_row(a.x.shape[0], a.x.shape[1], [&](Index t, Index h) {
    const float *const r = at(a.r, t, h), *const k = at(a.k, t, h),
                       *const r_k = a.r_k.data + h * a.r_k.strides[0];
    float dot = 0;
    for (int i = lane; i < dim; i += kWarp) dot = fmaf(r[i] * k[i], r_k[i], dot);
    const float own = sum_of_warp(dot);
    for (int i = lane; i < values; i += kWarp)
      at(a.out, t, h)[i] = fmaf(own, at(a.v, t, h)[i], at(a.x, t, h)[i]) * at(a.gate, t, h)[i];
  });
}

}  // namespace
}  // namespace cuda

void scale_heads(const ScaleHeads& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "scale_heads", "one by one", to_string(a.out.shape));
  launch(exec, "scale_heads", cuda::scale_elements, cuda::elements(exec, a.out.size()), a);
}

void dpfp(const Dpfp& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "dpfp", "one by one", to_string(a.x.shape));
  launch(exec, "dpfp", cuda::dpfp_elements, cuda::elements(exec, a.out.size()), a);
}

void hedgehog(const Hedgehog& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "hedgehog", "rows", to_string(a.x.shape));
  if (a.out.size() == 0) return;
  launch(exec, "hedgehog", cuda::hedgehog_rows, cuda::rows(exec, a.x.shape[0] * a.x.shape[1]), a);
}

void rwkv7_values(const Rwkv7Values& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "rwkv7_values", "one by one", to_string(a.v.shape));
  launch(exec, "rwkv7_values", cuda::rwkv7_value_elements, cuda::elements(exec, a.v.size()), a);
}

void rwkv7_keys(const Rwkv7Keys& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "rwkv7_keys", "rows", to_string(a.k.shape));
  launch(exec, "rwkv7_keys", cuda::rwkv7_key_rows, cuda::rows(exec, a.k.shape[0] * a.k.shape[1]), a);
}

void rwkv7_output(const Rwkv7Output& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "rwkv7_output", "rows", to_string(a.x.shape));
  launch(exec, "rwkv7_output", cuda::rwkv7_output_rows, cuda::rows(exec, a.x.shape[0] * a.x.shape[1]), a);
}

}  // namespace v0
}  // namespace ashlar
