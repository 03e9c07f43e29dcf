// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/scale_channels.hpp"

#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/scale_channels.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

void scale_channels_rows(const ScaleChannels& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const Index rows = a.x.shape[1], columns = a.x.shape[2], channels = a.x.shape[3];
  const auto factor = hn::Set(d, a.factor);
  for (Index row = begin; row < end; ++row)
    for (Index w = 0; w < columns; ++w) {
      const Index n = row / rows, h = row % rows;
      const float *x = a.x.at(n, h, w), *gate = a.gate.at(n), *add = a.add ? a.add.at(n, h, w) : nullptr;
      float* out = a.out.at(n, h, w);
      for (Index c = 0; c < channels; c += lanes) {
        const Index left = channels - c;
        const auto scale = hn::Mul(factor, load_some(d, gate + c, left)), y = load_some(d, x + c, left);
        store_some(add ? hn::MulAdd(scale, y, load_some(d, add + c, left)) : hn::Mul(scale, y), d, out + c,
                   left);
      }
    }
}

void dynamic_relu_rows(const DynamicRelu& a, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const Index rows = a.x.shape[1], columns = a.x.shape[2], channels = a.x.shape[3];
  for (Index row = begin; row < end; ++row)
    for (Index w = 0; w < columns; ++w) {
      const Index n = row / rows, h = row % rows;
      const float *x = a.x.at(n, h, w), *first = a.slopes.at(n), *second = first + channels;
      float* out = a.out.at(n, h, w);
      for (Index c = 0; c < channels; c += lanes) {
        const Index left = channels - c;
        const auto y = load_some(d, x + c, left);
        store_some(
            hn::Max(hn::Mul(y, load_some(d, first + c, left)), hn::Mul(y, load_some(d, second + c, left))), d,
            out + c, left);
      }
    }
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
HWY_EXPORT(scale_channels_rows);
HWY_EXPORT(dynamic_relu_rows);
}  // namespace kernels

void scale_channels(const ScaleChannels& a, CpuExec& exec) {
  const auto& shape = a.x.shape;
  expect_shape("scale_channels", "x", a.x, shape);
  expect_shape("scale_channels", "gate", a.gate, {shape[0], shape[3]});
  expect_shape("scale_channels", "out", a.out, shape);
  if (a.add) expect_shape("scale_channels", "add", a.add, shape);
  trace(exec, "scale_channels", "rows", to_string(shape));
  parallel_rows(exec, shape[0] * shape[1], shape[2] * shape[3], [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, scale_channels_rows)(a, begin, end);
  });
}

void dynamic_relu(const DynamicRelu& a, CpuExec& exec) {
  const auto& shape = a.x.shape;
  expect_shape("dynamic_relu", "x", a.x, shape);
  expect_shape("dynamic_relu", "slopes", a.slopes, {shape[0], 2 * shape[3]});
  expect_shape("dynamic_relu", "out", a.out, shape);
  trace(exec, "dynamic_relu", "rows", to_string(shape));
  parallel_rows(exec, shape[0] * shape[1], shape[2] * shape[3], [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, dynamic_relu_rows)(a, begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
