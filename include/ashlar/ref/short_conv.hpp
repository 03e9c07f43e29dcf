// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "ashlar/ops/short_conv.hpp"
#include "ashlar/ref/activation.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void short_conv(const ShortConvArgs<T>& a) {
  const Index tokens = a.x.shape[0], channels = a.x.shape[1], width = a.weight.shape[1], keep = width - 1;
  const Index stride = a.state_stride != 0 ? a.state_stride : channels;
  for (Index n = 0; n < a.offsets.count(); ++n) {
    const Index begin = a.offsets.begin(n), count = a.offsets.end(n, tokens) - begin;
    T* state = a.states.empty() ? nullptr : a.states[static_cast<std::size_t>(n)];
    // The sequence with its state before it: [W - 1 + count, C].
    std::vector<T> past(static_cast<std::size_t>((keep + count) * channels), T(0));
    const View<T, 2> full(past.data(), {keep + count, channels});
    for (Index c = 0; c < channels; ++c) {
      for (Index t = 0; t < keep && state != nullptr; ++t) full(t, c) = state[t * stride + c];
      for (Index t = 0; t < count; ++t) full(keep + t, c) = a.x(begin + t, c);
      for (Index t = 0; t < count; ++t) {
        T sum = a.bias ? a.bias(c) : T(0);
        for (Index j = 0; j < width; ++j) sum += a.weight(c, j) * full(t + j, c);
        a.out(begin + t, c) = activation(a.activation, sum);
      }
      for (Index t = 0; t < keep && state != nullptr; ++t) state[t * stride + c] = full(count + t, c);
    }
  }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
