// SPDX-License-Identifier: Apache-2.0
// What the kernels of dense layers of few rows share.
#pragma once
#include "src/cuda/dense.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kMostLayers = 8;  // of one launch

struct MatvecLayer {
  const void* weight;
  const float *bias, *x;
  float* out;
  Index weight_stride, x_stride, out_stride;
  int features, inputs, first_unit;
  // Of a gated layer, out = activation(x W^T + bias) (x up^T + up_bias); null: the plain one.
  const void* up;
  const float* up_bias;
  Activation activation;
  float* residual;  // += out; null: none
  Index residual_stride;
};
// A unit is a few neighbouring features of one layer, what a block makes at a time.
struct MatvecLayers {
  MatvecLayer layer[kMostLayers];
  int count, units;
};

__device__ __forceinline__ const MatvecLayer& layer_of(const MatvecLayers& all, int unit) {
  int i = 0;
  while (i + 1 < all.count && unit >= all.layer[i + 1].first_unit) ++i;
  return all.layer[i];
}

// Read once: past the first cache.
__device__ __forceinline__ uint4 load_weights(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// Up to 16 rows, rounded to bf16, with weights of bf16.
void matvec_mma(MatvecLayers layers, int tokens, CudaExec& exec);

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
