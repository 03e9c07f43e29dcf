// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cublasLt.h>

#include <array>
#include <map>
#include <memory>

#include "ashlar/cuda/device_weight.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {

// Up to so many rows decode reads each weight once, or twice; beyond, it goes as prefill.
constexpr Index kMostMatvecRows = 16;

// Layers of one element type, of phase decode and of no more than kMostMatvecRows rows each.
void matvec(std::span<const DeviceDense> layers, CudaExec& exec);

// gate.out = activation(x gate^T + bias) (x up^T + bias) for one row in one launch; false, and nothing
// queued, for what it does not take. up.out is not used.
bool gated_matvec(const DeviceDense& gate, const DeviceDense& up, Activation activation, CudaExec& exec);

// to [M, K] packed, parts of it: x = to[0] + to[1] + ... with each rounded to bf16.
void split_to_bf16(View<const float, 2> x, View<bf16, 3> to, CudaExec& exec);
// out[m, n] += bias[n]
void add_bias(View<const float, 1> bias, View<float, 2> out, CudaExec& exec);

// out = x W^T + bias (+ out with `accumulate`) by cuBLASLt, in f32 or of bf16 with sums of f32.
// Plans are made once for shapes, strides and alignments; which algorithm runs depends on nothing else.
class MatmulPlans {
 public:
  struct Problem {
    const void *x, *weight;
    float* out;
    const float* bias;  // null: none
    Index m, n, k, x_stride, weight_stride, out_stride;
    bool is_bf16, accumulate;
  };
  // False where cuBLASLt has no kernel that adds the bias; nothing is queued then.
  bool run(const Problem& p, CudaExec& exec);

 private:
  struct Plan;
  using Key = std::array<Index, 11>;
  std::map<Key, std::shared_ptr<Plan>> plans_;
};

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
