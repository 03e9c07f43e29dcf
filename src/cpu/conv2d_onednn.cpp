// SPDX-License-Identifier: Apache-2.0
#include "src/cpu/conv2d_library.hpp"

#ifdef ASHLAR_HAS_ONEDNN
#include <list>
#include <mutex>

#include "src/cpu/onednn.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// Conv2dWeight's panels back in the order of checkpoints.
Tensor<float, 1> unpacked(const Conv2dWeight& weight) {
  const Index groups = weight.groups(), columns = weight.outputs() / groups, padded = conv_padded(columns),
              each = weight.inputs() / groups, taps = weight.kernel()[0] * weight.kernel()[1],
              depth = taps * each;
  Tensor<float, 1> plain({weight.outputs() * depth});
  for (Index o = 0; o < weight.outputs(); ++o) {
    const Index column = o % columns, first = column / kConvPanel * kConvPanel;
    const Index width = std::min(kConvPanel, padded - first);
    const float* from = weight.packed().data() + (o / columns * padded + first) * depth + (column - first);
    for (Index i = 0; i < each; ++i)
      for (Index t = 0; t < taps; ++t) plain.data()[(o * each + i) * taps + t] = from[(t * each + i) * width];
  }
  return plain;
}

dnnl::memory::desc described(dnnl::memory::dims dims, dnnl::memory::format_tag tag) {
  return {std::move(dims), dnnl::memory::data_type::f32, tag};
}

}  // namespace

class LibraryFilters {
 public:
  const float* get(const Conv2dWeight& weight, const dnnl::memory::desc& plain,
                   const dnnl::memory::desc& order) {
    const std::lock_guard lock(mutex_);
    for (const Ordered& made : made_)
      if (made.order == order) return made.values.data();
    auto from = unpacked(weight);
    Tensor<float, 1> to({static_cast<Index>((order.get_size() + 3) / 4)});
    const OneDnnOnOneThread guard;
    dnnl::stream stream(onednn_cpu());
    dnnl::memory source(plain, onednn_cpu(), from.data()), target(order, onednn_cpu(), to.data());
    dnnl::reorder(source, target).execute(stream, source, target);
    stream.wait();
    return made_.emplace_back(Ordered{order, std::move(to)}).values.data();
  }

 private:
  struct Ordered {
    dnnl::memory::desc order;
    Tensor<float, 1> values;
  };
  std::mutex mutex_;
  std::list<Ordered> made_;
};

std::shared_ptr<LibraryFilters> make_library_filters() { return std::make_shared<LibraryFilters>(); }

namespace {

using Tag = dnnl::memory::format_tag;
using Descriptor = dnnl::convolution_forward::primitive_desc;

class OneDnnConvolution : public Convolution {
 public:
  OneDnnConvolution(const Descriptor& d, dnnl::memory::desc plain)
      : convolution_(d),
        x_(d.src_desc()),
        plain_(std::move(plain)),
        filters_(d.weights_desc()),
        bias_(d.bias_desc()),
        out_(d.dst_desc()),
        scratch_(d.scratchpad_desc()) {}

  void run(const float* x, const float* filters, const float* bias, float* out,
           void* scratch) const override {
    const OneDnnOnOneThread guard;
    dnnl::stream stream(onednn_cpu());
    const auto memory = [](const dnnl::memory::desc& of, const void* at) {
      return dnnl::memory(of, onednn_cpu(), const_cast<void*>(at));
    };
    convolution_.execute(stream, {{DNNL_ARG_SRC, memory(x_, x)},
                                  {DNNL_ARG_WEIGHTS, memory(filters_, filters)},
                                  {DNNL_ARG_BIAS, memory(bias_, bias)},
                                  {DNNL_ARG_DST, memory(out_, out)},
                                  {DNNL_ARG_SCRATCHPAD, memory(scratch_, scratch)}});
    stream.wait();
  }
  Index scratch_bytes() const override { return static_cast<Index>(scratch_.get_size()); }
  const float* filters(const Conv2dWeight& weight) const override {
    return weight.library()->get(weight, plain_, filters_);
  }

 private:
  dnnl::convolution_forward convolution_;
  dnnl::memory::desc x_, plain_, filters_, bias_, out_, scratch_;
};

dnnl::memory::dims filter_dims(const ConvolutionShape& s) {
  const Index each = s.inputs / s.groups;
  if (s.groups == 1) return {s.outputs, each, s.kernel[0], s.kernel[1]};
  return {s.groups, s.outputs / s.groups, each, s.kernel[0], s.kernel[1]};
}

Descriptor describe(const ConvolutionShape& s) {
  const auto x = described({1, s.inputs, s.in[0], s.in[1]}, Tag::nhwc),
             filters = described(filter_dims(s), Tag::any),
             bias = s.bias ? described({s.outputs}, Tag::a) : dnnl::memory::desc(),
             out = described({1, s.outputs, s.out[0], s.out[1]}, Tag::nhwc);
  const dnnl::memory::dims stride{s.stride[0], s.stride[1]}, gaps{s.dilation[0] - 1, s.dilation[1] - 1},
      before{s.before[0], s.before[1]}, after{s.after[0], s.after[1]};
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  // The library's own scratchpad is one a thread that made a primitive: other threads may not use it.
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
  return {onednn_cpu(), kind, algorithm, x, filters, bias, out, stride, gaps, before, after, attributes};
#else
  return {{kind, algorithm, x, filters, bias, out, stride, gaps, before, after}, attributes, onednn_cpu()};
#endif
}

}  // namespace

std::shared_ptr<const Convolution> Convolution::make(const ConvolutionShape& s) {
  try {
    const OneDnnOnOneThread guard;
    const Descriptor descriptor = describe(s);
    if (std::string_view(descriptor.impl_info_str()).find("ref") != std::string_view::npos) return nullptr;
    const auto plain = described(filter_dims(s), s.groups == 1 ? Tag::oihw : Tag::goihw);
    return std::make_shared<OneDnnConvolution>(descriptor, plain);
  } catch (const dnnl::error& e) {
    if (e.status == dnnl_unimplemented || e.status == dnnl_invalid_arguments) return nullptr;
    throw Error("BackendFailure", concat("conv2d: oneDNN failed: ", std::string_view(e.what())));
  }
}

}  // namespace v0
}  // namespace ashlar

#else

namespace ashlar {
inline namespace v0 {

std::shared_ptr<LibraryFilters> make_library_filters() { return nullptr; }
std::shared_ptr<const Convolution> Convolution::make(const ConvolutionShape&) { return nullptr; }

}  // namespace v0
}  // namespace ashlar
#endif  // ASHLAR_HAS_ONEDNN
