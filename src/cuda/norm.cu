// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/ops.hpp"
#include "src/core/op_checks.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

enum class NormKind { rms, layer, l2, sum };

struct NormRows {
  View<const float, 3> x, gate;
  View<float, 3> out;
  const float *weight, *bias;
  Index rows, weight_head, bias_head;  // from one head's weights to the next one's
  float eps, offset, scale;            // offset of the weights, or all of them without; scale of l2
  Activation activation;
};

// A row of kThreads threads: what it is multiplied with is a function of its sum, its squares' sum or, of a
// layer norm, its mean and the squares' sum around that. kParts: groups of kVector elements that a thread
// holds of its row; 0: they are read again.
template <NormKind kKind, int kThreads, int kBlock, int kVector, int kParts>
__global__ void __launch_bounds__(kBlock) norm_rows(const NormRows a) {
  constexpr bool kHeld = kParts > 0, kWeighted = kKind == NormKind::rms || kKind == NormKind::layer;
  constexpr int kStep = kThreads * kVector, kHold = kHeld ? kParts : 1;
  __shared__ float partial[kBlock / kWarp];
  let_next_start();
  const Index row = static_cast<Index>(blockIdx.x) * (kBlock / kThreads) + threadIdx.x / kThreads;
  const int lane = threadIdx.x % kThreads, dim = static_cast<int>(a.x.shape[2]);
  const Index t = row / a.x.shape[1], h = row % a.x.shape[1];
  const float* weight = a.weight != nullptr ? a.weight + h * a.weight_head : nullptr;
  const float* bias = a.bias != nullptr ? a.bias + h * a.bias_head : nullptr;
  Floats<kVector> held[kHold], weights[kHold], gates[kHold];
  // f(part, first element) for what is this thread's.
  auto each = [&](auto&& f) {
    if constexpr (kHeld) {
#pragma unroll
      for (int p = 0; p < kHold; ++p)
        if (const int i = lane * kVector + p * kStep; i < dim) f(p, i);
    } else {
      for (int i = lane * kVector; i < dim; i += kStep) f(0, i);
    }
  };
  if (kHeld && kWeighted && weight != nullptr && row < a.rows)  // weights do not change
    each([&](int p, int i) { weights[p] = load<kVector>(weight + i); });
  wait_for_previous();
  if (row >= a.rows) return;
  const float* x = a.x.data + t * a.x.strides[0] + h * a.x.strides[1];

  const float* gate =
      a.gate.data != nullptr ? a.gate.data + t * a.gate.strides[0] + h * a.gate.strides[1] : nullptr;

  float sum = 0, mean = 0;
  each([&](int p, int i) {
    held[p] = load<kVector>(x + i);
    if (kHeld && kWeighted && gate != nullptr) gates[p] = load<kVector>(gate + i);
    for (float e : held[p].x) sum += kKind == NormKind::layer || kKind == NormKind::sum ? e : e * e;
  });
  sum = sum_of_group<kThreads>(sum, partial);
  if constexpr (kKind == NormKind::layer) {
    mean = sum / static_cast<float>(dim), sum = 0;
    each([&](int p, int i) {
      if constexpr (!kHeld) held[p] = load<kVector>(x + i);
      for (float e : held[p].x) sum += (e - mean) * (e - mean);
    });
    sum = sum_of_group<kThreads>(sum, partial);
  }
  float scale;
  if constexpr (kKind == NormKind::sum)
    scale = 1.0f / (sum + a.eps);
  else if constexpr (kKind == NormKind::l2)
    scale = a.scale / sqrtf(sum + a.eps);
  else
    scale = 1.0f / sqrtf(sum / static_cast<float>(dim) + a.eps);

  float* out = a.out.data + t * a.out.strides[0] + h * a.out.strides[1];
  each([&](int p, int i) {
    auto v = held[p];
    if constexpr (!kHeld) v = load<kVector>(x + i);
    for (int j = 0; j < kVector; ++j) v.x[j] = (v.x[j] - mean) * scale;
    if constexpr (kWeighted) {
      if (weight != nullptr) {
        const auto w = kHeld ? weights[p] : load<kVector>(weight + i);
        for (int j = 0; j < kVector; ++j) v.x[j] *= a.offset + w.x[j];
      } else if (kKind == NormKind::rms) {
        for (int j = 0; j < kVector; ++j) v.x[j] *= a.offset;
      }
      if (bias != nullptr) {
        const auto b = load<kVector>(bias + i);
        for (int j = 0; j < kVector; ++j) v.x[j] += b.x[j];
      }
      if (gate != nullptr) {
        const auto z = kHeld ? gates[p] : load<kVector>(gate + i);
        for (int j = 0; j < kVector; ++j) v.x[j] *= activation_of(a.activation, z.x[j]);
      }
    }
    store<kVector>(out + i, v);
  });
}

template <NormKind kKind>
void run(const char* op, NormRows a, View<const float, 1> weight, View<const float, 1> bias, CudaExec& exec) {
  const Index dim = a.x.shape[2];
  a.rows = a.x.shape[0] * a.x.shape[1];
  if (a.rows == 0 || dim == 0) return;
  trace(exec, op, dim <= 1024 && a.rows > 8 ? "a row a warp" : "a row a block", to_string(a.x.shape));
  a.weight = weight.data, a.weight_head = weight && weight.shape[0] != dim ? dim : 0;
  a.bias = bias.data, a.bias_head = bias && bias.shape[0] != dim ? dim : 0;
  const bool fours = by_four(a.x) && by_four(a.out) && by_four(a.gate) && by_four(weight) && by_four(bias);
  constexpr int kRow = 256, kWide = 1024;
  const unsigned warps = blocks(a.rows, kRow / kWarp), whole = static_cast<unsigned>(a.rows);
  if (dim <= 1024 && a.rows > 8) {
    if (!fours)
      launch(exec, op, norm_rows<kKind, kWarp, kRow, 1, 0>, {warps, kRow}, a);
    else if (dim <= 256)
      launch(exec, op, norm_rows<kKind, kWarp, kRow, 4, 2>, {warps, kRow}, a);
    else
      launch(exec, op, norm_rows<kKind, kWarp, kRow, 4, 0>, {warps, kRow}, a);
  } else if (!fours) {
    launch(exec, op, norm_rows<kKind, kRow, kRow, 1, 0>, {whole, kRow}, a);
  } else if (dim <= 4 * kWide && a.rows <= exec.multiprocessors()) {  // a few long rows: one access a thread
    launch(exec, op, norm_rows<kKind, kWide, kWide, 4, 1>, {whole, kWide}, a);
  } else if (dim <= 16 * kRow) {
    launch(exec, op, norm_rows<kKind, kRow, kRow, 4, 4>, {whole, kRow}, a);
  } else {
    launch(exec, op, norm_rows<kKind, kRow, kRow, 4, 0>, {whole, kRow}, a);
  }
}

}  // namespace
}  // namespace cuda

void rms_norm(const RmsNorm& a, CudaExec& exec) {
  check(a);
  cuda::NormRows rows{a.x, a.gate, a.out};
  rows.eps = a.eps, rows.offset = a.weight ? a.weight_offset : 1 + a.weight_offset;
  rows.activation = a.gate_activation;
  cuda::run<cuda::NormKind::rms>("rms_norm", rows, a.weight, {}, exec);
}

void layer_norm(const LayerNorm& a, CudaExec& exec) {
  check(a);
  cuda::NormRows rows{a.x, a.gate, a.out};
  rows.eps = a.eps, rows.offset = 0, rows.activation = a.gate_activation;
  cuda::run<cuda::NormKind::layer>("layer_norm", rows, a.weight, a.bias, exec);
}

void l2_norm(const L2Norm& a, CudaExec& exec) {
  check(a);
  cuda::NormRows rows{a.x, {}, a.out};
  rows.eps = a.eps, rows.scale = a.scale;
  cuda::run<cuda::NormKind::l2>("l2_norm", rows, {}, {}, exec);
}

void sum_norm(const SumNorm& a, CudaExec& exec) {
  check(a);
  cuda::NormRows rows{a.x, {}, a.out};
  rows.eps = a.eps;
  cuda::run<cuda::NormKind::sum>("sum_norm", rows, {}, {}, exec);
}

}  // namespace v0
}  // namespace ashlar
