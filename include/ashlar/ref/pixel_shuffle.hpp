// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/pixel_shuffle.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// wide [N, H, W, r r C] and fine [N, r H, r W, C]: each element with its counterpart.
template <class Wide, class Fine, class Each>
void each_of_blocks(const View<Wide, 4>& wide, const View<Fine, 4>& fine, BlockOrder order, Each&& each) {
  const auto [images, rows, columns, channels] = fine.shape;
  const Index r = wide.shape[1] == 0 ? 1 : rows / wide.shape[1];
  for (Index n = 0; n < images; ++n)
    for (Index y = 0; y < rows; ++y)
      for (Index x = 0; x < columns; ++x)
        for (Index c = 0; c < channels; ++c) {
          const Index inside = y % r * r + x % r;
          const Index at = order == BlockOrder::channel_first ? c * r * r + inside : inside * channels + c;
          each(wide(n, y / r, x / r, at), fine(n, y, x, c));
        }
}

template <class T>
void pixel_shuffle(const PixelShuffleArgs<T>& a) {
  each_of_blocks(a.x, a.out, a.order, [](const T& wide, T& fine) { fine = wide; });
}

template <class T>
void pixel_unshuffle(const PixelShuffleArgs<T>& a) {
  each_of_blocks(a.out, a.x, a.order, [](T& wide, const T& fine) { wide = fine; });
}

template <class T>
void channel_shuffle(const ChannelShuffleArgs<T>& a) {
  const auto [images, rows, columns, channels] = a.x.shape;
  const Index each = channels / a.groups;
  for (Index n = 0; n < images; ++n)
    for (Index h = 0; h < rows; ++h)
      for (Index w = 0; w < columns; ++w)
        for (Index q = 0; q < a.groups; ++q)
          for (Index k = 0; k < each; ++k) a.out(n, h, w, k * a.groups + q) = a.x(n, h, w, q * each + k);
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
