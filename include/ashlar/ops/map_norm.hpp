// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

// out = activation(x * scale + shift), channel by channel: batch normalisation at inference (Ioffe and
// Szegedy, 2015) with scale = weight / sqrt(var + eps), shift = bias - mean scale (core/reparam.hpp makes
// them, and folds them into a convolution where there is one). Refused: shapes that differ. `out` may be `x`.
template <class T>
struct ChannelAffineArgs {
  View<const T, 4> x;      // [N, H, W, C]
  View<const T, 1> scale;  // [C]
  View<const T, 1> shift;  // [C]; empty: none
  View<T, 4> out;          // [N, H, W, C]
  Activation activation = Activation::identity;
  T negative_slope = T(kNegativeSlope);  // of leaky_relu
};
using ChannelAffine = ChannelAffineArgs<float>;

void channel_affine(const ChannelAffine& args, CpuExec& exec);

// Group normalisation of each image (Wu and He, 2018): over all pixels and the channels of a group,
//   out = weight * (x - mean) / sqrt(var + eps) + bias,  var = mean((x - mean)^2)
// groups = 1 normalises an image as a whole; that is not the layer norm of each pixel (ops/norm.hpp), which
// "LayerNorm2d" is. Refused: shapes that differ, groups that do not divide the channels. `out` may be `x`.
template <class T>
struct GroupNorm2dArgs {
  View<const T, 4> x;       // [N, H, W, C]
  View<const T, 1> weight;  // [C]; empty: all ones
  View<const T, 1> bias;    // [C]; empty: none
  View<T, 4> out;           // [N, H, W, C]
  Index groups = 1;
  T eps = T(1e-5);
};
using GroupNorm2d = GroupNorm2dArgs<float>;

void group_norm2d(const GroupNorm2d& args, CpuExec& exec);

// Global response normalisation (ConvNeXt V2; Woo et al., 2023), with G[n, c] the root of the sum of x^2 over
// an image's pixels:
//   out = x + bias + weight * x * G / (mean over c of G + eps)
// Refused: shapes that differ. `out` may be `x`.
template <class T>
struct GlobalResponseNormArgs {
  View<const T, 4> x;       // [N, H, W, C]
  View<const T, 1> weight;  // [C]
  View<const T, 1> bias;    // [C]
  View<T, 4> out;           // [N, H, W, C]
  T eps = T(1e-6);
};
using GlobalResponseNorm = GlobalResponseNormArgs<float>;

void global_response_norm(const GlobalResponseNorm& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
