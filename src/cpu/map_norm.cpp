// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/map_norm.hpp"

#include <cmath>

#include "src/cpu/channel_sums.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/map_norm.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/activation-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// out = activation((x - centre) * scale + shift) for rows [begin, end) of the images; scale, shift and centre
// are of the image's own when they have more than one row, and centre may be null.
void affine_rows(const ChannelAffine& a, const float* centre, Index row_step, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const Index rows = a.x.shape[1], columns = a.x.shape[2], channels = a.x.shape[3];
  with_activation(a.activation, [&](auto f) HWY_ATTR {
    for (Index row = begin; row < end; ++row) {
      const Index n = row / rows, own = n * row_step;
      for (Index w = 0; w < columns; ++w) {
        const float* x = a.x.at(n, row % rows, w);
        float* out = a.out.at(n, row % rows, w);
        for (Index c = 0; c < channels; c += lanes) {
          const Index left = channels - c;
          const auto scale = load_some(d, a.scale.data + own + c, left);
          auto y = load_some(d, x + c, left);
          if (centre) y = hn::Sub(y, load_some(d, centre + own + c, left));
          y = a.shift ? hn::MulAdd(y, scale, load_some(d, a.shift.data + c, left)) : hn::Mul(y, scale);
          store_some(activation<decltype(f)::value>(d, y, a.negative_slope), d, out + c, left);
        }
      }
    }
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
HWY_EXPORT(affine_rows);
}  // namespace kernels
namespace {

// Scales and centres of an image each, [N, C] one behind another; a null centre is 0.
void affine(const ChannelAffine& a, const float* centre, bool per_image, CpuExec& exec) {
  const Index rows = a.x.shape[1], channels = a.x.shape[3];
  parallel_rows(exec, a.x.shape[0] * rows, a.x.shape[2] * channels, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, affine_rows)(a, centre, per_image ? channels : 0, begin, end);
  });
}

}  // namespace

void channel_affine(const ChannelAffine& a, CpuExec& exec) {
  expect_shape("channel_affine", "x", a.x, a.x.shape);
  expect_shape("channel_affine", "out", a.out, a.x.shape);
  expect_shape("channel_affine", "scale", a.scale, {a.x.shape[3]});
  if (a.shift) expect_shape("channel_affine", "shift", a.shift, {a.x.shape[3]});
  trace(exec, "channel_affine", "rows", to_string(a.x.shape));
  affine(a, nullptr, false, exec);
}

void group_norm2d(const GroupNorm2d& a, CpuExec& exec) {
  const Index images = a.x.shape[0], pixels = a.x.shape[1] * a.x.shape[2], channels = a.x.shape[3];
  expect_shape("group_norm2d", "x", a.x, a.x.shape);
  expect_shape("group_norm2d", "out", a.out, a.x.shape);
  if (a.weight) expect_shape("group_norm2d", "weight", a.weight, {channels});
  if (a.bias) expect_shape("group_norm2d", "bias", a.bias, {channels});
  if (a.groups < 1 || channels % a.groups != 0)
    refuse("group_norm2d", a.groups, " groups do not divide the ", channels, " channels");
  trace(exec, "group_norm2d", "rows", to_string(a.x.shape), " groups ", a.groups);
  if (a.x.size() == 0) return;
  const Index each = channels / a.groups;
  CpuScratch scratch(exec);
  const auto centre = scratch.floats(images, channels), scale = scratch.floats(images, channels);
  // Sums of channels become the mean of their group, for each of its channels.
  const auto average = [&](View<float, 2> sums, auto&& f) {
    for (Index n = 0; n < images; ++n)
      for (Index g = 0; g < a.groups; ++g) {
        double total = 0;
        for (Index c = g * each; c < (g + 1) * each; ++c) total += static_cast<double>(sums(n, c));
        const double mean = total / (static_cast<double>(pixels) * static_cast<double>(each));
        for (Index c = g * each; c < (g + 1) * each; ++c) sums(n, c) = f(mean, c);
      }
  };
  channel_sums(a.x, false, {}, centre, exec);
  average(centre, [](double mean, Index) { return static_cast<float>(mean); });
  channel_sums(a.x, true, centre, scale, exec);
  average(scale, [&](double variance, Index c) {
    const double root = 1 / std::sqrt(variance + static_cast<double>(a.eps));
    return static_cast<float>(a.weight ? static_cast<double>(a.weight(c)) * root : root);
  });
  affine({a.x, {scale.data, {images * channels}}, a.bias, a.out}, centre.data, true, exec);
}

void global_response_norm(const GlobalResponseNorm& a, CpuExec& exec) {
  const Index images = a.x.shape[0], channels = a.x.shape[3];
  expect_shape("global_response_norm", "x", a.x, a.x.shape);
  expect_shape("global_response_norm", "out", a.out, a.x.shape);
  expect_shape("global_response_norm", "weight", a.weight, {channels});
  expect_shape("global_response_norm", "bias", a.bias, {channels});
  trace(exec, "global_response_norm", "rows", to_string(a.x.shape));
  if (a.x.size() == 0) return;
  CpuScratch scratch(exec);
  const auto scale = scratch.floats(images, channels);
  channel_sums(a.x, true, {}, scale, exec);
  for (Index n = 0; n < images; ++n) {
    double total = 0;
    for (Index c = 0; c < channels; ++c) total += std::sqrt(static_cast<double>(scale(n, c)));
    const double mean = total / static_cast<double>(channels) + static_cast<double>(a.eps);
    for (Index c = 0; c < channels; ++c)
      scale(n, c) = static_cast<float>(1 + static_cast<double>(a.weight(c)) *
                                               std::sqrt(static_cast<double>(scale(n, c))) / mean);
  }
  affine({a.x, {scale.data, {images * channels}}, a.bias, a.out}, nullptr, true, exec);
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
