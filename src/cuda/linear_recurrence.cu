// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ashlar/cuda/ops.hpp"
#include "src/core/recurrence_check.hpp"
#include "src/cuda/recurrence.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// out = (columns of x but the last) / (the last + eps), x [rows, D + 1]
__global__ void __launch_bounds__(kThreads) divide_rows(const float* x, View<float, 3> out, float eps) {
  let_next_start();
  wait_for_previous();
  const Index dim = out.shape[2], all = out.shape[0] * out.shape[1] * dim;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreads) {
    const Index row = i / dim, c = i % dim, t = row / out.shape[1], h = row % out.shape[1];
    const float* in = x + row * (dim + 1);
    out.data[t * out.strides[0] + h * out.strides[1] + c] = in[c] / (in[dim] + eps);
  }
}

RecurrenceInput input(const View<const float, 3>& v, Index heads) {
  if (!v) return {};
  return {v.data, v.strides[0], v.strides[1], static_cast<int>(heads / v.shape[1])};
}
RecurrenceInput input(const View<const float, 2>& v, Index heads) {  // [T, H']
  if (!v) return {};
  return {v.data, v.strides[0], v.strides[1], static_cast<int>(heads / v.shape[1])};
}

}  // namespace
}  // namespace cuda

void linear_recurrence(const DeviceLinearRecurrence& a, CudaExec& exec) {
  check(a);
  constexpr const char* op = "linear_recurrence";
  if (!a.requests.empty()) refuse(op, "states at given tokens were asked for, which a device does not give");
  const auto [tokens, heads, dv] = a.out.shape;
  const Index dk = a.k.shape[2], columns = dv + (a.normalize ? 1 : 0);
  cuda::RecurrenceCall call;
  const Index all = heads;
  using cuda::input;
  call.q = input(a.q, all), call.k = input(a.k, all), call.v = input(a.v, all), call.g = input(a.g, all);
  call.gk = input(a.gk, all), call.beta = input(a.beta, all), call.a = input(a.a, all),
  call.b = input(a.b, all);
  if (a.bonus) call.bonus = {a.bonus.data, 0, a.bonus.strides[0], static_cast<int>(heads / a.bonus.shape[0])};
  call.out = a.out.data, call.out_row = a.out.strides[0], call.out_head = a.out.strides[1];
  call.heads = static_cast<int>(heads), call.key_dim = static_cast<int>(dk);
  call.value_dim = static_cast<int>(dv), call.columns = static_cast<int>(columns);
  call.substeps = static_cast<int>(a.substeps);
  call.scale = a.scale != 0 ? a.scale : 1 / std::sqrt(static_cast<float>(dk));
  call.tokens = tokens;
  if (tokens == 0) return;
  CudaHostScratch host(exec);
  const auto sequences = host.get<cuda::RecurrenceSequence>(a.offsets.count());
  // How a sequence is worked through depends on itself alone: those that go in chunks are put last.
  const bool chunks = a.form != RecurrenceForm::recurrent && exec.precision() == Precision::fast &&
                      recurrence_chunks_take(call);
  const Index least = a.form == RecurrenceForm::chunk ? 1 : cuda::kLeastForChunks;
  Index by_token = 0, in_chunks = 0;
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const Index begin = a.offsets.begin(n), end = a.offsets.end(n, a.out.shape[0]);
    if (begin == end) continue;
    const cuda::RecurrenceSequence s{
        begin, end, a.states.empty() ? nullptr : a.states[static_cast<std::size_t>(n)]->data()};
    if (chunks && end - begin >= least)
      sequences.data[a.offsets.count() - ++in_chunks] = s;
    else
      sequences.data[by_token++] = s;
  }
  auto run = [&] {
    if (by_token > 0) recurrence_by_token(call, {sequences.data, static_cast<std::size_t>(by_token)}, exec);
    if (in_chunks > 0)
      recurrence_in_chunks(
          call, {sequences.data + a.offsets.count() - in_chunks, static_cast<std::size_t>(in_chunks)}, exec);
  };
  if (a.normalize) {
    CudaScratch scratch(exec);
    const auto wide = scratch.floats(tokens, heads, columns);
    call.out = wide.data, call.out_row = wide.strides[0], call.out_head = wide.strides[1];
    run();
    launch(exec, op, cuda::divide_rows,
           {std::min(static_cast<unsigned>(exec.multiprocessors()) * 8,
                     cuda::blocks(a.out.size(), cuda::kThreads)),
            cuda::kThreads},
           wide.data, a.out, a.normalizer_eps);
  } else {
    run();
  }
  for (std::size_t n = 0; n < a.states.size(); ++n) {
    const Index i = static_cast<Index>(n);
    a.states[n]->advance(a.offsets.end(i, tokens) - a.offsets.begin(i));
  }
}

}  // namespace v0
}  // namespace ashlar
