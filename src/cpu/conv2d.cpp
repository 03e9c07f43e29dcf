// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/conv2d.hpp"

#include "ashlar/core/conv2d_weight.hpp"
#include "ashlar/ref/conv2d.hpp"
#include "src/cpu/dispatch.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr std::string_view kOp = "conv2d";

}  // namespace

Conv2dWeight::Conv2dWeight(AnyView<4> filters, Index groups, CpuExec&)
    : outputs_(filters.shape[0]),
      inputs_(filters.shape[1] * groups),
      groups_(groups),
      kernel_{filters.shape[2], filters.shape[3]} {
  if (filters.dtype != DType::f32 && filters.dtype != DType::bf16)
    refuse(kOp, "the filters are of type ", name(filters.dtype), ", expected f32 or bf16");
  if (groups < 1 || outputs_ % groups != 0)
    refuse(kOp, groups, " groups do not divide the ", outputs_, " outputs");
  Index size = 1;
  for (Index e : filters.shape) size *= e;
  if (size <= 0)
    refuse(kOp, "the filters have shape ", to_string(filters.shape), ", expected none of it empty");
  packed_ = Tensor<float, 1>({size});
  for (Index i = 0; i < size; ++i) {
    const auto* bytes = static_cast<const std::byte*>(filters.data);
    if (filters.dtype == DType::f32) {
      std::memcpy(packed_.data() + i, bytes + 4 * i, 4);
    } else {
      bf16 narrow;
      std::memcpy(&narrow, bytes + 2 * i, 2);
      packed_.data()[i] = static_cast<float>(narrow);
    }
  }
}

void conv2d(const Conv2dArgs& a, CpuExec& exec) {
  if (!a.weight) refuse(kOp, "the weight is empty");
  const auto [kh, kw] = a.weight.kernel();
  const Conv2dSteps& s = a.steps;
  for (int axis : {0, 1})
    if (s.stride[axis] < 1 || s.padding[axis] < 0 || s.dilation[axis] < 1)
      refuse(kOp, "stride ", s.stride[axis], ", padding ", s.padding[axis], " and dilation ",
             s.dilation[axis], ", expected at least 1, 0 and 1");
  const Index images = a.x.shape[0];
  expect_shape(kOp, "x", a.x, {images, a.x.shape[1], a.x.shape[2], a.weight.inputs()});
  const Index rows = conv2d_extent(a.x.shape[1], kh, s.stride[0], s.padding[0], s.dilation[0]),
              columns = conv2d_extent(a.x.shape[2], kw, s.stride[1], s.padding[1], s.dilation[1]);
  if (rows < 1 || columns < 1)
    refuse(kOp, "x of shape ", to_string(a.x.shape), " is smaller than the kernel of ", kh, " x ", kw);
  expect_shape(kOp, "out", a.out, {images, rows, columns, a.weight.outputs()});
  if (a.bias) expect_shape(kOp, "bias", a.bias, {a.weight.outputs()});
  if (a.residual) expect_shape(kOp, "residual", a.residual, a.out.shape);
  trace(exec, kOp, "equation", to_string(a.x.shape));
  ref::Conv2dArgs<float> equation{
      a.x,
      {a.weight.packed().data(), {a.weight.outputs(), a.weight.inputs() / a.weight.groups(), kh, kw}},
      a.bias,
      a.out,
      a.weight.groups(),
      a.steps,
      a.activation,
      a.negative_slope,
      a.residual};
  ref::conv2d(equation);
}

}  // namespace v0
}  // namespace ashlar
