// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/ops.hpp"
#include "src/core/op_checks.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 128, kTokens = 32;  // channels and tokens a block
constexpr int kFewSequences = 16;

struct ConvSequence {
  Index begin, end;
  float* state;  // null: zeros before the first token
};
using Sequences = ArgumentList<ConvSequence, kFewSequences>;

// The input of token t (of the sequence, may be negative) in channel c.
__device__ __forceinline__ float input(const ShortConv& a, const ConvSequence& s, Index t, Index c, int keep,
                                       Index stride) {
  const float* const row = t >= 0 ? a.x.data + (s.begin + t) * a.x.strides[0] : s.state;
  return row != nullptr ? row[(t >= 0 ? 0 : (keep + t) * stride) + c] : 0.0f;
}

// The state becomes the last `keep` inputs: what is read of it lies behind what is written.
__device__ void advance(const ShortConv& a, const ConvSequence& s, Index c, int keep, Index stride) {
  const Index length = s.end - s.begin;
  for (int i = 0; i < keep; ++i) s.state[i * stride + c] = input(a, s, length - keep + i, c, keep, stride);
}

// A thread a channel, going through kTokens tokens with the last inputs at hand. Sequences of no more tokens
// than that have their states advanced here.
template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    short_conv_tokens(const ShortConv a, const Sequences sequences, Index stride) {
  let_next_start();
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  float weight[kWidth != 0 ? kWidth : 1];
  if (c < a.x.shape[1])  // weights do not change
    for (int j = 0; j < kWidth; ++j) weight[j] = a.weight.data[c * a.weight.strides[0] + j];
  wait_for_previous();
  const ConvSequence s = sequences[blockIdx.z];
  const Index length = s.end - s.begin, first = static_cast<Index>(blockIdx.y) * kTokens;
  if (c >= a.x.shape[1] || first >= length) return;
  const int width = kWidth != 0 ? kWidth : static_cast<int>(a.weight.shape[1]), keep = width - 1;
  const float bias = a.bias.data != nullptr ? a.bias.data[c] : 0.0f;
  const float* w = a.weight.data + c * a.weight.strides[0];
  const Index last = first + kTokens < length ? first + kTokens : length;
  if constexpr (kWidth != 0) {
    float x[kWidth];
    for (int j = 1; j < kWidth; ++j) x[j] = input(a, s, first - kWidth + j, c, keep, stride);
    float next = input(a, s, first, c, keep, stride);
    for (Index t = first; t < last; ++t) {
      for (int j = 1; j < kWidth; ++j) x[j - 1] = x[j];
      x[kWidth - 1] = next;
      if (t + 1 < last) next = input(a, s, t + 1, c, keep, stride);
      float sum = bias;
      for (int j = 0; j < kWidth; ++j) sum = fmaf(weight[j], x[j], sum);
      a.out.data[(s.begin + t) * a.out.strides[0] + c] = activation_of(a.activation, sum);
    }
    if (s.state != nullptr && length <= kTokens)
      for (int j = 1; j < kWidth; ++j) s.state[(j - 1) * stride + c] = x[j];
  } else {
    for (Index t = first; t < last; ++t) {
      float sum = bias;
      for (int j = 0; j < width; ++j) sum = fmaf(w[j], input(a, s, t - keep + j, c, keep, stride), sum);
      a.out.data[(s.begin + t) * a.out.strides[0] + c] = activation_of(a.activation, sum);
    }
    if (s.state != nullptr && length <= kTokens) advance(a, s, c, keep, stride);
  }
}

// The states of longer sequences, when all blocks have read them.
__global__ void __launch_bounds__(kThreads)
    short_conv_states(const ShortConv a, const Sequences sequences, Index stride) {
  let_next_start();
  wait_for_previous();
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const ConvSequence s = sequences[blockIdx.y];
  if (c < a.x.shape[1] && s.end - s.begin > kTokens)
    advance(a, s, c, static_cast<int>(a.weight.shape[1]) - 1, stride);
}

}  // namespace
}  // namespace cuda

void short_conv(const ShortConv& a, CudaExec& exec) {
  check(a);
  const Index tokens = a.x.shape[0], channels = a.x.shape[1], width = a.weight.shape[1];
  cuda::trace(exec, "short_conv", width == 4 ? "taps_4" : "taps_any", to_string(a.x.shape));
  if (tokens == 0 || channels == 0) return;
  CudaScratch scratch(exec);
  Index longest = 0;
  const Index count = a.offsets.count();
  const auto sequences = argument_list<cuda::kFewSequences,
                                       cuda::ConvSequence>(exec, "short_conv", count, scratch, [&](Index n) {
    const Index begin = a.offsets.begin(n), end = a.offsets.end(n, tokens);
    longest = std::max(longest, end - begin);
    return cuda::ConvSequence{begin, end, a.states.empty() ? nullptr : a.states[static_cast<std::size_t>(n)]};
  });
  const Index stride = a.state_stride != 0 ? a.state_stride : channels;
  const unsigned across = cuda::blocks(channels, cuda::kThreads);
  const LaunchShape shape{{across, cuda::blocks(longest, cuda::kTokens), static_cast<unsigned>(count)},
                          cuda::kThreads};
  auto kernel = width == 4   ? cuda::short_conv_tokens<4>
                : width == 3 ? cuda::short_conv_tokens<3>
                : width == 2 ? cuda::short_conv_tokens<2>
                             : cuda::short_conv_tokens<0>;
  launch(exec, "short_conv", kernel, shape, a, sequences, stride);
  if (!a.states.empty() && width > 1 && longest > cuda::kTokens)
    launch(exec, "short_conv", cuda::short_conv_states,
           {{across, static_cast<unsigned>(count)}, cuda::kThreads}, a, sequences, stride);
}

}  // namespace v0
}  // namespace ashlar
