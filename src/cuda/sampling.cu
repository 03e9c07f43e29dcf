// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/ops.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 1024;

// Whether (x, i) comes before (y, j): larger, or as large and earlier.
__device__ __forceinline__ bool before(float x, int i, float y, int j) { return x > y || (x == y && i < j); }

__global__ void __launch_bounds__(kThreads)
    argmax_row(View<const float, 2> logits, View<std::int32_t, 1> ids) {
  __shared__ float values[kThreads / kWarp];
  __shared__ int places[kThreads / kWarp];
  let_next_start();
  wait_for_previous();
  const float* row = logits.data + blockIdx.x * logits.strides[0];
  const int count = static_cast<int>(logits.shape[1]);
  float best = -INFINITY;
  int at = count;
  for (int i = threadIdx.x; i < count; i += kThreads)
    if (before(row[i], i, best, at)) best = row[i], at = i;
  auto over_warp = [&] {
    for (int d = kWarp / 2; d > 0; d /= 2) {
      const float x = __shfl_xor_sync(~0u, best, d);
      const int i = __shfl_xor_sync(~0u, at, d);
      if (before(x, i, best, at)) best = x, at = i;
    }
  };
  over_warp();
  if (threadIdx.x % kWarp == 0) values[threadIdx.x / kWarp] = best, places[threadIdx.x / kWarp] = at;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  best = values[threadIdx.x], at = places[threadIdx.x];
  over_warp();
  if (threadIdx.x == 0) ids.data[blockIdx.x * ids.strides[0]] = at < count ? at : 0;
}

}  // namespace
}  // namespace cuda

void argmax(View<const float, 2> logits, View<std::int32_t, 1> ids, CudaExec& exec) {
  constexpr const char* op = "argmax";
  expect_shape(op, "logits", logits, logits.shape);
  expect_shape(op, "ids", ids, {logits.shape[0]});
  if (logits.shape[1] < 1)
    refuse(op, "logits has shape ", to_string(logits.shape), ", expected some ids to choose from");
  cuda::trace(exec, op, "a row a block", to_string(logits.shape));
  if (logits.shape[0] == 0) return;
  launch(exec, op, cuda::argmax_row, {static_cast<unsigned>(logits.shape[0]), cuda::kThreads}, logits, ids);
}

}  // namespace v0
}  // namespace ashlar
