// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/ops.hpp"
#include "src/core/op_checks.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256, kFewTokens = 32, kMostPairs = 1024;

// A block a token: cosines and sines once, then all heads.
__global__ void __launch_bounds__(kThreads)
    rope_token(const Rope a, const ArgumentList<Index, kFewTokens> positions) {
  extern __shared__ float table[];  // [pairs] cosines, [pairs] sines
  const int pairs = static_cast<int>(a.inverse_frequencies.shape[0]);
  const int dim = static_cast<int>(a.x.shape[2]), heads = static_cast<int>(a.x.shape[1]);
  const Index t = blockIdx.x;
  let_next_start();
  for (int i = threadIdx.x; i < pairs; i += kThreads) {
    double sine, cosine;
    sincos(static_cast<double>(positions[t]) * static_cast<double>(a.inverse_frequencies.data[i]), &sine,
           &cosine);
    table[i] = a.factor * static_cast<float>(cosine), table[pairs + i] = a.factor * static_cast<float>(sine);
  }
  wait_for_previous();
  __syncthreads();
  const int items = dim - pairs;  // pairs, then elements that are copied
  for (int i = threadIdx.x; i < heads * items; i += kThreads) {
    const int h = i / items, e = i % items;
    const float* x = a.x.data + t * a.x.strides[0] + h * a.x.strides[1];
    float* out = a.out.data + t * a.out.strides[0] + h * a.out.strides[1];
    if (e >= pairs) {
      out[pairs + e] = x[pairs + e];
      continue;
    }
    const bool halves = a.layout == RopeLayout::half_split;
    const int first = halves ? e : 2 * e, second = halves ? e + pairs : 2 * e + 1;
    const float x0 = x[first], x1 = x[second], c = table[e], s = table[pairs + e];
    out[first] = x0 * c - x1 * s, out[second] = x1 * c + x0 * s;
  }
}

}  // namespace
}  // namespace cuda

void rope(const Rope& a, CudaExec& exec) {
  check(a);
  const auto [tokens, heads, dim] = a.x.shape;
  const Index pairs = a.inverse_frequencies.shape[0];
  if (pairs > cuda::kMostPairs)
    refuse("rope", pairs, " inverse frequencies were given, a device takes up to ", cuda::kMostPairs);
  cuda::trace(exec, "rope", a.layout == RopeLayout::half_split ? "half_split" : "interleaved",
              to_string(a.x.shape));
  if (a.x.size() == 0) return;
  CudaScratch scratch(exec);
  const auto positions = argument_list<cuda::kFewTokens, Index>(exec, "rope", tokens, scratch,
                                                                [&](Index i) { return a.positions(i); });
  launch(exec, "rope", cuda::rope_token,
         {static_cast<unsigned>(tokens), cuda::kThreads, 2 * sizeof(float) * static_cast<std::size_t>(pairs)},
         a, positions);
}

}  // namespace v0
}  // namespace ashlar
