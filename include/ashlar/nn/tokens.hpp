// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/view.hpp"

namespace ashlar {
inline namespace v0 {

// The pixels of images as tokens, [N, H, W, C] as [N H W, C]. Refused: room between rows or images.
template <class T>
View<T, 2> as_tokens(const View<T, 4>& x) {
  const auto& [images, height, width, channels] = x.shape;
  const bool even = (height <= 1 || x.strides[1] == width * x.strides[2]) &&
                    (images <= 1 || x.strides[0] == height * width * x.strides[2]);
  if (!even) refuse("as_tokens", "rows or images have room between them, expected pixels with equal steps");
  return {x.data, {images * height * width, channels}, {x.strides[2], x.strides[3]}};
}

}  // namespace v0
}  // namespace ashlar
