// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <vector>

#include "ashlar/ops/map_norm.hpp"
#include "ashlar/ref/activation.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
void channel_affine(const ChannelAffineArgs<T>& a) {
  const auto [images, rows, columns, channels] = a.x.shape;
  for (Index n = 0; n < images; ++n)
    for (Index h = 0; h < rows; ++h)
      for (Index w = 0; w < columns; ++w)
        for (Index c = 0; c < channels; ++c)
          a.out(n, h, w, c) = activation(
              a.activation, a.x(n, h, w, c) * a.scale(c) + (a.shift ? a.shift(c) : 0), a.negative_slope);
}

template <class T>
void group_norm2d(const GroupNorm2dArgs<T>& a) {
  const auto [images, rows, columns, channels] = a.x.shape;
  const Index each = channels / a.groups;
  const T count = T(rows * columns * each);
  for (Index n = 0; n < images; ++n)
    for (Index g = 0; g < a.groups; ++g) {
      const auto sum = [&, n, g, rows = rows, columns = columns](auto&& f) {
        T total = 0;
        for (Index h = 0; h < rows; ++h)
          for (Index w = 0; w < columns; ++w)
            for (Index c = g * each; c < (g + 1) * each; ++c) total += f(a.x(n, h, w, c));
        return total;
      };
      const T mean = sum([](T x) { return x; }) / count;
      const T scale = 1 / std::sqrt(sum([&](T x) { return (x - mean) * (x - mean); }) / count + a.eps);
      for (Index h = 0; h < rows; ++h)
        for (Index w = 0; w < columns; ++w)
          for (Index c = g * each; c < (g + 1) * each; ++c)
            a.out(n, h, w, c) = (a.weight ? a.weight(c) : T(1)) * (a.x(n, h, w, c) - mean) * scale +
                                (a.bias ? a.bias(c) : T(0));
    }
}

template <class T>
void global_response_norm(const GlobalResponseNormArgs<T>& a) {
  const auto [images, rows, columns, channels] = a.x.shape;
  for (Index n = 0; n < images; ++n) {
    std::vector<T> response(static_cast<std::size_t>(channels));
    T mean = 0;
    for (Index c = 0; c < channels; ++c) {
      T sum = 0;
      for (Index h = 0; h < rows; ++h)
        for (Index w = 0; w < columns; ++w) sum += a.x(n, h, w, c) * a.x(n, h, w, c);
      mean += (response[static_cast<std::size_t>(c)] = std::sqrt(sum)) / T(channels);
    }
    for (Index h = 0; h < rows; ++h)
      for (Index w = 0; w < columns; ++w)
        for (Index c = 0; c < channels; ++c) {
          const T x = a.x(n, h, w, c);
          a.out(n, h, w, c) =
              x + a.bias(c) + a.weight(c) * x * response[static_cast<std::size_t>(c)] / (mean + a.eps);
        }
  }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
