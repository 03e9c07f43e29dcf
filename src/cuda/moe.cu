// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/cuda/ops.hpp"
#include "src/core/op_checks.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256, kFewRows = 32;
using RowList = ArgumentList<Index, kFewRows>;

__global__ void __launch_bounds__(kThreads)
    gather_row(View<const float, 2> x, View<float, 2> out, const RowList tokens) {
  let_next_start();
  wait_for_previous();
  const Index i = blockIdx.x;
  const float* from = x.data + tokens[i] * x.strides[0];
  for (Index c = threadIdx.x; c < x.shape[1]; c += kThreads) out.data[i * out.strides[0] + c] = from[c];
}

__global__ void __launch_bounds__(kThreads) combine_row(const MoeCombine a, const RowList rows) {
  let_next_start();
  wait_for_previous();
  const Index t = blockIdx.x, chosen = a.rows.shape[1];
  const float gate =
      a.shared_gate.data != nullptr ? sigmoid(a.shared_gate.data[t * a.shared_gate.strides[0]]) : 1;
  for (Index c = threadIdx.x; c < a.out.shape[1]; c += kThreads) {
    float sum = 0;
    for (Index j = 0; j < chosen; ++j)
      sum = fmaf(a.weights.data[t * a.weights.strides[0] + j],
                 a.y.data[rows[t * chosen + j] * a.y.strides[0] + c], sum);
    if (a.shared.data != nullptr) sum = fmaf(gate, a.shared.data[t * a.shared.strides[0] + c], sum);
    a.out.data[t * a.out.strides[0] + c] = sum;
  }
}

// A copy in the host's memory.
Tensor<float, 2> to_host(const char* op, View<const float, 2> v, CudaExec& exec) {
  Tensor<float, 2> host(v.shape);
  for (Index t = 0; t < v.shape[0]; ++t)
    download(exec, op, v.at(t), sizeof(float) * static_cast<std::size_t>(v.shape[1]), host.view().at(t));
  return host;
}

}  // namespace
}  // namespace cuda

// Experts are wanted in the host's memory: what chooses them runs there, on a few numbers a token.
void moe_route(const MoeRoute& a, CudaExec& exec) {
  check(a);
  constexpr const char* op = "moe_route";
  cuda::trace(exec, op, "on the host", to_string(a.logits.shape));
  const auto [tokens, experts] = a.logits.shape;
  Tensor<float, 2> logits({tokens, experts}), weights(a.weights.shape);
  Tensor<float, 1> bias;
  if (a.logits.packed())
    download(exec, op, a.logits.data, sizeof(float) * static_cast<std::size_t>(logits.size()), logits.data());
  else
    logits = cuda::to_host(op, a.logits, exec);
  MoeRoute on_host = a;
  if (a.selection_bias) {
    bias = Tensor<float, 1>({experts});
    download(exec, op, a.selection_bias.data, sizeof(float) * static_cast<std::size_t>(experts), bias.data());
    on_host.selection_bias = bias.view();
  }
  on_host.logits = logits.view(), on_host.weights = weights.view();
  CpuExec cpu({.threads = 1});
  moe_route(on_host, cpu);
  const std::size_t row = sizeof(float) * static_cast<std::size_t>(a.weights.shape[1]);
  if (a.weights.packed())
    upload(exec, op, weights.data(), row * static_cast<std::size_t>(tokens), a.weights.data);
  else
    for (Index t = 0; t < tokens; ++t) upload(exec, op, weights.view().at(t), row, a.weights.at(t));
}

void moe_group(const MoeGroup& a, CudaExec& exec) {
  cuda::trace(exec, "moe_group", "on the host", to_string(a.experts.shape));
  CpuExec cpu({.threads = 1});
  moe_group(a, cpu);
}

void moe_gather(const MoeGather& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "moe_gather", "rows", to_string(a.out.shape));
  if (a.out.size() == 0) return;
  CudaScratch scratch(exec);
  const Index rows = a.tokens.shape[0];
  const auto tokens = argument_list<cuda::kFewRows, Index>(exec, "moe_gather", rows, scratch,
                                                           [&](Index i) { return a.tokens(i); });
  launch(exec, "moe_gather", cuda::gather_row, {static_cast<unsigned>(rows), cuda::kThreads}, a.x, a.out,
         tokens);
}

void moe_combine(const MoeCombine& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "moe_combine", "rows", to_string(a.y.shape));
  if (a.out.size() == 0) return;
  CudaScratch scratch(exec);
  const auto [tokens, chosen] = a.rows.shape;
  const Index each = chosen;
  const auto rows = argument_list<cuda::kFewRows, Index>(exec, "moe_combine", tokens * chosen, scratch,
                                                         [&](Index i) { return a.rows(i / each, i % each); });
  launch(exec, "moe_combine", cuda::combine_row, {static_cast<unsigned>(tokens), cuda::kThreads}, a, rows);
}

}  // namespace v0
}  // namespace ashlar
