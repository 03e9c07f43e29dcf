// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <span>

#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// Convolutions and batch normalisations that are one convolution at inference. All of it is worked out in
// double and rounded once; filters are in the order of checkpoints, [O, I / groups, kh, kw].

// y = (x - mean) / sqrt(var + eps) * weight + bias, each [C]; an empty weight is ones, an empty bias zeros.
struct BatchNormStatistics {
  View<const float, 1> weight, bias, mean, var;
  double eps = 1e-5;
};

// The same as y = x * scale + shift.
struct ChannelScales {
  Tensor<float, 1> scale, shift;
};
ChannelScales channel_scales(const BatchNormStatistics& norm);

struct Filters {
  Tensor<float, 4> weight;  // [O, I / groups, kh, kw]
  Tensor<float, 1> bias;    // [O]
};

// A convolution, then a batch norm of its outputs. bias may be empty.
Filters fold_norm_after(View<const float, 4> weight, View<const float, 1> bias,
                        const BatchNormStatistics& norm);
// A batch norm of its inputs, then a convolution of 1 x 1 or without padding: a zero that a convolution pads
// with is no zero of the norm, so that a padded one has no such form. That it is not padded is the caller's
// to know; `groups` of the convolution.
Filters fold_norm_before(const BatchNormStatistics& norm, View<const float, 4> weight,
                         View<const float, 1> bias, Index groups = 1);

// One of several branches that are added up: a convolution; without filters, the identity, or with `average`
// the mean over a window of that size that counts its padding. Then, where it is given, a batch norm.
struct ReparamBranch {
  View<const float, 4> weight;  // [O, I / groups, kh, kw]
  View<const float, 1> bias;    // [O]; empty: none
  Index groups = 1;
  std::optional<BatchNormStatistics> norm;
  std::array<Index, 2> average{0, 0};
};

// The sum of branches of one stride and output size as one convolution (RepVGG, Ding et al., 2021; MobileOne,
// Vasu et al., 2022), each branch's kernel centred in `kernel`. Refused: kernels that are larger than it or
// do not share its centre, groups that do not divide, an identity of unequal inputs and outputs, and a branch
// whose groups are coarser than `groups`.
Filters reparam(std::span<const ReparamBranch> branches, Index inputs, Index outputs,
                std::array<Index, 2> kernel, Index groups = 1);

}  // namespace v0
}  // namespace ashlar
