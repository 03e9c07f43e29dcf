// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/short_conv.hpp"

#include <algorithm>

#include "src/core/op_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/short_conv.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/activation-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Channels worked on at a time: their weights and the last W inputs stay in the first-level cache.
constexpr Index kChannels = 512;

void short_conv_transpose(const View<const float, 2>& weight, float* out) {
  const auto [channels, width] = weight.shape;
  Index c = 0;
  if (width == 4 && weight.packed()) {
    const FloatTag d;
    const Index lanes = static_cast<Index>(hn::Lanes(d));
    for (; c + lanes <= channels; c += lanes) {
      FloatVec w0, w1, w2, w3;
      hn::LoadInterleaved4(d, weight.at(c), w0, w1, w2, w3);
      hn::StoreU(w0, d, out + c), hn::StoreU(w1, d, out + channels + c);
      hn::StoreU(w2, d, out + 2 * channels + c), hn::StoreU(w3, d, out + 3 * channels + c);
    }
  }
  for (; c < channels; ++c)
    for (Index j = 0; j < width; ++j) out[j * channels + c] = weight(c, j);
}

// Channels [begin, end) of one token; rows are its W inputs, oldest first. Width 0: W is known at run time
// only.
template <Activation F, int Width>
void short_conv_token(const float* const* rows, const float* weights, const float* bias, float* out,
                      Index channels, Index begin, Index end, Index width) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), taps = Width != 0 ? Width : width;
  Index c = begin;
  for (; c + lanes <= end; c += lanes) {
    auto y = bias ? hn::LoadU(d, bias + c) : hn::Zero(d);
    for (Index j = 0; j < taps; ++j)
      y = hn::MulAdd(hn::LoadU(d, weights + j * channels + c), hn::LoadU(d, rows[j] + c), y);
    hn::StoreU(activation<F>(d, y), d, out + c);
  }
  if (c == end) return;
  const Index left = end - c;
  auto y = bias ? load_n(d, bias + c, left) : hn::Zero(d);
  for (Index j = 0; j < taps; ++j)
    y = hn::MulAdd(load_n(d, weights + j * channels + c, left), load_n(d, rows[j] + c, left), y);
  store_n(activation<F>(d, y), d, out + c, left);
}

// Tokens [begin, end) of the packed axis. weights is [W][C], zeros [C] stands for inputs before the start,
// and rows has room for W pointers.
template <Activation F, int Width>
void short_conv_part(const ShortConv& a, const float* weights, const float* zeros, Index begin, Index end,
                     const float** rows) {
  const Index tokens = a.x.shape[0], channels = a.x.shape[1], width = a.weight.shape[1];
  const float* bias = a.bias ? a.bias.data : nullptr;
  for (Index n = first_after(a.offsets, begin, tokens); begin < end; ++n) {
    const Index start = a.offsets.begin(n), stop = std::min(end, a.offsets.end(n, tokens));
    const float* state = a.states.empty() ? zeros : a.states[static_cast<std::size_t>(n)];
    const Index step = a.states.empty() ? 0 : a.state_stride != 0 ? a.state_stride : channels;
    for (Index c = 0; c < channels; c += kChannels)
      for (Index t = begin; t < stop; ++t) {
        for (Index j = 0; j < width; ++j) {
          const Index from = t - width + 1 + j;
          rows[j] = from >= start ? a.x.at(from) : state + (from - start + width - 1) * step;
        }
        short_conv_token<F, Width>(rows, weights, bias, a.out.at(t), channels, c,
                                   std::min(channels, c + kChannels), width);
      }
    begin = std::max(begin, stop);
  }
}

void short_conv_tokens(const ShortConv& a, const float* weights, const float* zeros, Index begin, Index end,
                       const float** rows) {
  with_activation(a.activation, [&](auto f) HWY_ATTR {
    if (a.weight.shape[1] == 4)
      short_conv_part<decltype(f)::value, 4>(a, weights, zeros, begin, end, rows);
    else
      short_conv_part<decltype(f)::value, 0>(a, weights, zeros, begin, end, rows);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(short_conv_transpose);
HWY_EXPORT(short_conv_tokens);
}  // namespace kernels

namespace {

// The state becomes the last `keep` rows of itself followed by the sequence's tokens [begin, end).
void advance(float* state, Index stride, const View<const float, 2>& x, Index begin, Index end, Index keep) {
  const Index channels = x.shape[1], old = keep - std::min(keep, end - begin);
  if (old == keep) return;
  for (Index i = 0; i < keep; ++i)
    std::copy_n(i < old ? state + (keep - old + i) * stride : x.at(end - keep + i), channels,
                state + i * stride);
}

}  // namespace

void short_conv(const ShortConv& a, CpuExec& exec) {
  check(a);
  const Index tokens = a.x.shape[0], channels = a.x.shape[1], width = a.weight.shape[1];
  trace(exec, "short_conv", width == 4 ? "taps_4" : "taps_any", to_string(a.x.shape));
  if (tokens == 0 || channels == 0) return;
  CpuScratch scratch(exec);
  float* weights = scratch.floats(width, channels).data;
  float* zeros = scratch.floats(channels).data;
  const float** rows = scratch.get<const float*>(exec.threads(), width).data;
  std::fill_n(zeros, channels, 0.0f);
  ASHLAR_DISPATCH(exec, short_conv_transpose)(a.weight, weights);
  parallel_rows(exec, tokens, channels, [&](Index begin, Index end, int worker) {
    ASHLAR_DISPATCH(exec, short_conv_tokens)(a, weights, zeros, begin, end, rows + worker * width);
  });
  if (a.states.empty()) return;
  const Index stride = a.state_stride != 0 ? a.state_stride : channels;
  parallel_rows(exec, a.offsets.count(), (width - 1) * channels, [&](Index first, Index last) {
    for (Index n = first; n < last; ++n)
      advance(a.states[static_cast<std::size_t>(n)], stride, a.x, a.offsets.begin(n),
              a.offsets.end(n, tokens), width - 1);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
