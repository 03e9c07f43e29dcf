// SPDX-License-Identifier: Apache-2.0
#include "src/cpu/conv2d.hpp"

#include <cstring>

#include "src/cpu/conv2d_library.hpp"
#include "src/cpu/dispatch.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr std::string_view kOp = "conv2d";

// Filters that may begin at any byte of a file.
class Reader {
 public:
  explicit Reader(const AnyView<4>& filters) : filters_(filters) {}
  float operator()(Index o, Index i, Index r, Index s) const {
    const auto& shape = filters_.shape;
    const Index at = ((o * shape[1] + i) * shape[2] + r) * shape[3] + s;
    const auto* bytes = static_cast<const std::byte*>(filters_.data);
    if (filters_.dtype == DType::f32) {
      float value;
      std::memcpy(&value, bytes + at * 4, 4);
      return value;
    }
    bf16 narrow;
    std::memcpy(&narrow, bytes + at * 2, 2);
    return static_cast<float>(narrow);
  }

 private:
  AnyView<4> filters_;
};

// Depthwise convolution and few outputs stay with the kernels of this project, the rest is the library's. Few
// outputs leave most of a vector idle; with each tap a column of its own they fill it.
Conv2dWeight::Form form_of(Index outputs, Index inputs, Index groups, Index taps) {
  if (groups > 1 && inputs == groups) return Conv2dWeight::Form::channels;
  const bool few = groups == 1 && taps > 1 && outputs < 8 && inputs >= 8 && outputs * taps <= kConvPanel;
  return few ? Conv2dWeight::Form::products : Conv2dWeight::Form::dense;
}

void check(const Conv2dArgs& a) {
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
}

}  // namespace

Conv2dWeight::Conv2dWeight(AnyView<4> filters, Index groups, CpuExec& exec)
    : outputs_(filters.shape[0]), groups_(groups), kernel_{filters.shape[2], filters.shape[3]} {
  if (filters.dtype != DType::f32 && filters.dtype != DType::bf16)
    refuse(kOp, "the filters are of type ", name(filters.dtype), ", expected f32 or bf16");
  for (Index e : filters.shape)
    if (e < 1 || !filters)
      refuse(kOp, "the filters have shape ", to_string(filters.shape), ", expected at least one of each");
  if (groups < 1 || outputs_ % groups != 0)
    refuse(kOp, groups, " groups do not divide the ", outputs_, " outputs");
  const Index each = filters.shape[1], kh = kernel_[0], kw = kernel_[1], taps = kh * kw;
  inputs_ = each * groups;
  form_ = form_of(outputs_, inputs_, groups, taps);
  const Reader read(filters);
  if (form_ == Form::channels) {  // [taps, outputs]
    packed_ = Tensor<float, 1>({taps * outputs_});
    for (Index o = 0; o < outputs_; ++o)
      for (Index t = 0; t < taps; ++t) packed_.data()[t * outputs_ + o] = read(o, 0, t / kw, t % kw);
    return;
  }
  if (form_ == Form::products) {  // [inputs, taps * outputs, padded]
    const Index columns = conv_padded(taps * outputs_);
    packed_ = Tensor<float, 1>({each * columns});
    for (Index i = 0; i < each; ++i)
      for (Index t = 0; t < taps; ++t)
        for (Index o = 0; o < outputs_; ++o)
          packed_.data()[i * columns + t * outputs_ + o] = read(o, i, t / kw, t % kw);
    return;
  }
  library_ = make_library_filters();
  // Of each group panels [taps * inputs, 64], the last one narrower.
  const Index columns = outputs_ / groups, depth = taps * each, padded = conv_padded(columns);
  packed_ = Tensor<float, 1>({groups * depth * padded});
  const Index panels = (columns + kConvPanel - 1) / kConvPanel;
  exec.parallel_for(groups * panels, [&](Index task, int) {
    const Index group = task / panels, first = task % panels * kConvPanel;
    const Index width = std::min(kConvPanel, padded - first), filled = std::min(kConvPanel, columns - first);
    float* to = packed_.data() + (group * padded + first) * depth;
    for (Index o = 0; o < filled; ++o)
      for (Index i = 0; i < each; ++i)
        for (Index t = 0; t < taps; ++t)
          to[(t * each + i) * width + o] = read(group * columns + first + o, i, t / kw, t % kw);
  });
}

void conv2d(const Conv2dArgs& a, CpuExec& exec) {
  check(a);
  const auto form = a.weight.form();
  CpuScratch scratch(exec);
  const bool dense = form == Conv2dWeight::Form::dense;
  const auto plan = dense ? plan_convolution(a, exec, scratch) : ConvolutionPlan{};
  trace(exec, kOp,
        form == Conv2dWeight::Form::channels   ? "depthwise"
        : form == Conv2dWeight::Form::products ? "products of pixels"
        : plan.reason.empty()                  ? std::string_view("oneDNN")
                                               : plan.reason,
        to_string(a.x.shape), " -> ", to_string(a.out.shape), " kernel ", to_string(a.weight.kernel()));
  if (a.out.size() == 0) return;
  switch (form) {
    case Conv2dWeight::Form::dense:
      return plan.reason.empty() ? conv2d_library(a, plan, exec) : conv2d_dense(a, exec);
    case Conv2dWeight::Form::products: return conv2d_products(a, exec);
    case Conv2dWeight::Form::channels: return conv2d_channels(a, exec);
  }
}

}  // namespace v0
}  // namespace ashlar
