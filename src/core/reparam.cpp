// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/reparam.hpp"

#include <cmath>
#include <vector>

namespace ashlar {
inline namespace v0 {
namespace {

constexpr std::string_view kOp = "reparam";

// The norm as x * scale + shift, in double.
struct Affine {
  std::vector<double> scale, shift;
};

Affine affine(const BatchNormStatistics& norm) {
  const Index n = norm.mean.shape[0];
  expect_shape(kOp, "mean", norm.mean, {n});
  expect_shape(kOp, "var", norm.var, {n});
  if (norm.weight) expect_shape(kOp, "the norm's weight", norm.weight, {n});
  if (norm.bias) expect_shape(kOp, "the norm's bias", norm.bias, {n});
  Affine a;
  for (Index c = 0; c < n; ++c) {
    const double variance = static_cast<double>(norm.var(c)) + norm.eps;
    if (!(variance > 0)) refuse(kOp, "var + eps of channel ", c, " is ", variance, ", expected more than 0");
    const double scale = (norm.weight ? static_cast<double>(norm.weight(c)) : 1) / std::sqrt(variance);
    a.scale.push_back(scale);
    a.shift.push_back((norm.bias ? static_cast<double>(norm.bias(c)) : 0) -
                      static_cast<double>(norm.mean(c)) * scale);
  }
  return a;
}

// That of `count` channels; without one, the identity.
Affine affine(const std::optional<BatchNormStatistics>& norm, Index count) {
  const auto n = static_cast<std::size_t>(count);
  if (!norm) return {std::vector<double>(n, 1), std::vector<double>(n, 0)};
  expect_shape(kOp, "mean", norm->mean, {count});
  return affine(*norm);
}

template <class T>
const T& at(const std::vector<T>& v, Index i) {
  return v[static_cast<std::size_t>(i)];
}
template <class T>
T& at(std::vector<T>& v, Index i) {
  return v[static_cast<std::size_t>(i)];
}

}  // namespace

ChannelScales channel_scales(const BatchNormStatistics& norm) {
  const Affine a = affine(norm);
  const Index n = norm.mean.shape[0];
  ChannelScales out{Tensor<float, 1>({n}), Tensor<float, 1>({n})};
  for (Index c = 0; c < n; ++c)
    out.scale.data()[c] = static_cast<float>(at(a.scale, c)),
    out.shift.data()[c] = static_cast<float>(at(a.shift, c));
  return out;
}

Filters fold_norm_after(View<const float, 4> weight, View<const float, 1> bias,
                        const BatchNormStatistics& norm) {
  const auto [outputs, inputs, kh, kw] = weight.shape;
  const ReparamBranch branch{weight, bias, 1, norm};
  return reparam({&branch, 1}, inputs, outputs, {kh, kw});
}

Filters fold_norm_before(const BatchNormStatistics& norm, View<const float, 4> weight,
                         View<const float, 1> bias, Index groups) {
  const auto [outputs, inputs, kh, kw] = weight.shape;
  if (groups < 1 || outputs % groups != 0)
    refuse(kOp, groups, " groups do not divide the ", outputs, " outputs");
  expect_shape(kOp, "weight", weight, weight.shape);
  if (bias) expect_shape(kOp, "bias", bias, {outputs});
  expect_shape(kOp, "mean", norm.mean, {inputs * groups});
  const Affine a = affine(norm);
  Filters out{Tensor<float, 4>(weight.shape), Tensor<float, 1>({outputs})};
  const auto w = out.weight.view();
  for (Index o = 0; o < outputs; ++o) {
    const Index first = o / (outputs / groups) * inputs;
    double total = bias ? static_cast<double>(bias(o)) : 0;
    for (Index i = 0; i < inputs; ++i)
      for (Index r = 0; r < kh; ++r)
        for (Index s = 0; s < kw; ++s) {
          const double value = static_cast<double>(weight(o, i, r, s));
          w(o, i, r, s) = static_cast<float>(value * at(a.scale, first + i));
          total += value * at(a.shift, first + i);
        }
    out.bias.data()[o] = static_cast<float>(total);
  }
  return out;
}

Filters reparam(std::span<const ReparamBranch> branches, Index inputs, Index outputs,
                std::array<Index, 2> kernel, Index groups) {
  if (groups < 1 || inputs < 1 || outputs < 1 || inputs % groups != 0 || outputs % groups != 0)
    refuse(kOp, groups, " groups do not divide ", inputs, " inputs and ", outputs, " outputs");
  if (kernel[0] < 1 || kernel[1] < 1)
    refuse(kOp, "the kernel is ", to_string(kernel), ", expected 1 or more");
  const Index each_in = inputs / groups, each_out = outputs / groups;
  std::vector<double> sum(static_cast<std::size_t>(outputs * each_in * kernel[0] * kernel[1]), 0.0);
  std::vector<double> bias(static_cast<std::size_t>(outputs), 0.0);
  for (const ReparamBranch& b : branches) {
    const bool averages = !b.weight && b.average[0] > 0 && b.average[1] > 0;
    const std::array<Index, 2> size = b.weight   ? std::array<Index, 2>{b.weight.shape[2], b.weight.shape[3]}
                                      : averages ? b.average
                                                 : std::array<Index, 2>{1, 1};
    for (int axis : {0, 1})
      if (size[axis] < 1 || size[axis] > kernel[axis] || (kernel[axis] - size[axis]) % 2 != 0)
        refuse(kOp, "a branch's kernel of ", to_string(size), " does not lie centred in one of ",
               to_string(kernel));
    if (!b.weight && inputs != outputs)
      refuse(kOp, "an identity branch has ", inputs, " inputs and ", outputs, " outputs, expected as many");
    // The identity has a group for each channel.
    const Index own = b.weight ? b.groups : inputs;
    if (own < 1 || inputs % own != 0 || outputs % own != 0 || own % groups != 0)
      refuse(kOp, "a branch of ", own, " groups does not fit into ", groups, " groups of ", inputs,
             " inputs and ", outputs, " outputs");
    const Index own_in = inputs / own, own_out = outputs / own;
    if (b.weight) expect_shape(kOp, "a branch's weight", b.weight, {outputs, own_in, size[0], size[1]});
    if (b.bias) expect_shape(kOp, "a branch's bias", b.bias, {outputs});
    const Affine norm = affine(b.norm, outputs);
    const Index top = (kernel[0] - size[0]) / 2, left = (kernel[1] - size[1]) / 2;
    for (Index o = 0; o < outputs; ++o) {
      const double scale = at(norm.scale, o);
      at(bias, o) += at(norm.shift, o) + (b.bias ? static_cast<double>(b.bias(o)) * scale : 0);
      const Index first = o / own_out * own_in - o / each_out * each_in;  // among the target group's inputs
      for (Index i = 0; i < own_in; ++i)
        for (Index r = 0; r < size[0]; ++r)
          for (Index s = 0; s < size[1]; ++s) {
            const double value = b.weight   ? static_cast<double>(b.weight(o, i, r, s))
                                 : averages ? 1 / static_cast<double>(size[0] * size[1])
                                            : 1;
            at(sum, ((o * each_in + first + i) * kernel[0] + top + r) * kernel[1] + left + s) +=
                value * scale;
          }
    }
  }
  Filters out{Tensor<float, 4>({outputs, each_in, kernel[0], kernel[1]}), Tensor<float, 1>({outputs})};
  for (Index i = 0; i < out.weight.size(); ++i) out.weight.data()[i] = static_cast<float>(at(sum, i));
  for (Index o = 0; o < outputs; ++o) out.bias.data()[o] = static_cast<float>(at(bias, o));
  return out;
}

}  // namespace v0
}  // namespace ashlar
