// SPDX-License-Identifier: Apache-2.0
// What goes along a sequence channel by channel: token_shift, hgrn.
#include "ashlar/cuda/ops.hpp"
#include "src/core/mixer_checks.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 128, kTokens = 16;  // channels and tokens of a block, tokens read at once by hgrn
constexpr int kFewSequences = 16;

struct ScanSequence {
  Index begin, end;
  float* state;  // null: zeros, not kept
};
using Sequences = ArgumentList<ScanSequence, kFewSequences>;

template <class State>
Sequences list_of(const char* op, const Offsets& offsets, Index tokens, CudaExec& exec, CudaScratch& scratch,
                  Index& longest, State&& state) {
  return argument_list<kFewSequences, ScanSequence>(exec, op, offsets.count(), scratch, [&](Index n) {
    const Index begin = offsets.begin(n), end = offsets.end(n, tokens);
    longest = std::max(longest, end - begin);
    return ScanSequence{begin, end, state(n)};
  });
}

// A thread a channel, through kTokens tokens. States of sequences of no more than that are advanced here.
__global__ void __launch_bounds__(kThreads) shift_channels(const TokenShift a, const Sequences sequences) {
  let_next_start();
  wait_for_previous();
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const ScanSequence s = sequences[blockIdx.z];
  const Index first = s.begin + static_cast<Index>(blockIdx.y) * kTokens;
  const Index last = first + kTokens < s.end ? first + kTokens : s.end;
  if (c >= a.x.shape[1] || first >= last) return;
  const Index row = a.x.strides[0];
  const float* x = a.x.data + c;
  float before = first > s.begin ? x[(first - 1) * row] : s.state != nullptr ? s.state[c] : 0.0f;
  for (Index t = first; t < last; ++t) {
    const float now = x[t * row];
    for (Index m = 0; m < a.out.shape[0]; ++m)
      a.out.data[m * a.out.strides[0] + t * a.out.strides[1] + c] =
          fmaf(a.mu.data[m * a.mu.strides[0] + t * a.mu.strides[1] + c], before - now, now);
    before = now;
  }
  if (s.state != nullptr && a.advance && s.end - s.begin <= kTokens) s.state[c] = before;
}

// The states of longer sequences, when all blocks have read them.
__global__ void __launch_bounds__(kThreads) shift_states(const TokenShift a, const Sequences sequences) {
  let_next_start();
  wait_for_previous();
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const ScanSequence s = sequences[blockIdx.y];
  if (c < a.x.shape[1] && s.end - s.begin > kTokens) s.state[c] = a.x.data[(s.end - 1) * a.x.strides[0] + c];
}

// A thread a channel, through all tokens of its sequence.
__global__ void __launch_bounds__(kWarp) scan_channels(View<const float, 2> x, View<const float, 2> g,
                                                       View<float, 2> out, const Sequences sequences) {
  let_next_start();
  wait_for_previous();
  const Index c = static_cast<Index>(blockIdx.x) * kWarp + threadIdx.x;
  const ScanSequence s = sequences[blockIdx.y];
  if (c >= x.shape[1] || s.begin == s.end) return;
  float h = s.state != nullptr ? s.state[c] : 0.0f;
  for (Index t = s.begin; t < s.end; t += kTokens) {
    float in[kTokens], decay[kTokens];
#pragma unroll
    for (int i = 0; i < kTokens; ++i)
      if (t + i < s.end) {
        in[i] = x.data[(t + i) * x.strides[0] + c];
        decay[i] = expf(g.data[(t + i) * g.strides[0] + c]);
      }
#pragma unroll
    for (int i = 0; i < kTokens; ++i)
      if (t + i < s.end) {
        h = fmaf(decay[i], h, in[i]);
        out.data[(t + i) * out.strides[0] + c] = h;
      }
  }
  if (s.state != nullptr) s.state[c] = h;
}

}  // namespace
}  // namespace cuda

void token_shift(const TokenShift& a, CudaExec& exec) {
  check(a);
  const Index tokens = a.x.shape[0], channels = a.x.shape[1];
  cuda::trace(exec, "token_shift", "by channels", to_string(a.out.shape));
  if (tokens == 0 || channels == 0) return;
  CudaScratch scratch(exec);
  Index longest = 0;
  const auto sequences = cuda::list_of(
      "token_shift", a.offsets, tokens, exec, scratch, longest,
      [&](Index n) { return a.states.empty() ? nullptr : a.states[static_cast<std::size_t>(n)]; });
  const unsigned across = cuda::blocks(channels, cuda::kThreads),
                 count = static_cast<unsigned>(a.offsets.count());
  launch(exec, "token_shift", cuda::shift_channels,
         {{across, cuda::blocks(longest, cuda::kTokens), count}, cuda::kThreads}, a, sequences);
  if (!a.states.empty() && a.advance && longest > cuda::kTokens)
    launch(exec, "token_shift", cuda::shift_states, {{across, count}, cuda::kThreads}, a, sequences);
}

void hgrn(const DeviceGatedScan& a, CudaExec& exec) {
  check(a);
  const Index tokens = a.x.shape[0], channels = a.x.shape[1];
  cuda::trace(exec, "hgrn", "by channels", to_string(a.x.shape));
  if (tokens == 0 || channels == 0) return;
  CudaScratch scratch(exec);
  Index longest = 0;
  const auto sequences = cuda::list_of("hgrn", a.offsets, tokens, exec, scratch, longest, [&](Index n) {
    return a.states.empty() ? nullptr : a.states[static_cast<std::size_t>(n)]->data();
  });
  launch(exec, "hgrn", cuda::scan_channels,
         {{cuda::blocks(channels, cuda::kWarp), static_cast<unsigned>(a.offsets.count())}, cuda::kWarp}, a.x,
         a.g, a.out, sequences);
  for (std::size_t n = 0; n < a.states.size(); ++n) {
    const Index i = static_cast<Index>(n);
    a.states[n]->advance(a.offsets.end(i, tokens) - a.offsets.begin(i));
  }
}

}  // namespace v0
}  // namespace ashlar
