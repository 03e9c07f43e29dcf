// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/ops.hpp"
#include "src/core/op_checks.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256, kFewTokens = 64;
using Ids = ArgumentList<std::int32_t, kFewTokens>;

template <class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    embedding_row(const T* table, Index stride, View<float, 2> out, float scale, const Ids ids) {
  let_next_start();
  wait_for_previous();
  const Index t = blockIdx.x;
  const T* row = table + ids[t] * stride;
  float* to = out.data + t * out.strides[0];
  for (Index i = threadIdx.x * kVector; i < out.shape[1]; i += kThreads * kVector) {
    auto v = load<kVector>(row + i);
    for (int j = 0; j < kVector; ++j) v.x[j] *= scale;
    store<kVector>(to + i, v);
  }
}

template <class T>
void run(const Embedding& a, const Ids& ids, CudaExec& exec) {
  const View<const T, 2> table = a.table.as<T>();
  const LaunchShape shape{static_cast<unsigned>(a.out.shape[0]), kThreads};
  if (by_four(table) && by_four(a.out))
    launch(exec, "embedding", embedding_row<T, 4>, shape, table.data, table.strides[0], a.out, a.scale, ids);
  else
    launch(exec, "embedding", embedding_row<T, 1>, shape, table.data, table.strides[0], a.out, a.scale, ids);
}

}  // namespace
}  // namespace cuda

void embedding(const Embedding& a, CudaExec& exec) {
  check(a);
  cuda::trace(exec, "embedding", name(a.table.dtype), to_string(a.out.shape));
  if (a.out.size() == 0) return;
  CudaScratch scratch(exec);
  const auto ids = argument_list<cuda::kFewTokens, std::int32_t>(
      exec, "embedding", a.out.shape[0], scratch,
      [&](Index i) { return a.ids[static_cast<std::size_t>(i)]; });
  switch (a.table.dtype) {
    case DType::bf16: return cuda::run<bf16>(a, ids, exec);
    case DType::f16: return cuda::run<f16>(a, ids, exec);
    default: return cuda::run<float>(a, ids, exec);
  }
}

}  // namespace v0
}  // namespace ashlar
