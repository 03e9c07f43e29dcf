// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/reparam.hpp"
#include "ashlar/nn/parameter_reader.hpp"

namespace ashlar {
inline namespace v0 {

struct Conv2dOptions {
  std::array<Index, 2> kernel{3, 3};
  Conv2dSteps steps{{1, 1}, {1, 1}};
  Index groups = 1;
  Activation activation = Activation::identity;
  float negative_slope = kNegativeSlope;  // of leaky_relu
  bool biased = true;                     // false: a bias is taken when it is there

  // k x k with the padding that keeps an image's size.
  static Conv2dOptions same(Index k) { return {{k, k}, {{1, 1}, {k / 2, k / 2}}}; }
  // k x k patches side by side.
  static Conv2dOptions patches(Index k) { return {{k, k}, {{k, k}}}; }
  Conv2dOptions with(Activation f, float slope = kNegativeSlope) const {
    Conv2dOptions o = *this;
    o.activation = f, o.negative_slope = slope;
    return o;
  }
  Conv2dOptions grouped(Index n) const {
    Conv2dOptions o = *this;
    o.groups = n;
    return o;
  }
  Conv2dOptions unbiased() const {
    Conv2dOptions o = *this;
    o.biased = false;
    return o;
  }
};

// A 2-D convolution with its filters: reads <name>.weight [out, in / groups, kh, kw] and <name>.bias [out].
template <class Exec>
class Conv2d {
 public:
  Conv2d() = default;
  Conv2d(const ParameterReader<Exec>& r, const Names& names, Index in, Index out,
         const Conv2dOptions& options = {})
      : o_(options) {
    weight_ = r.filters(shaped(r, names, in, out, options), options.groups);
    if (const Names bias = names.with(".bias"); options.biased || r.contains(bias))
      bias_ = r.vector(bias, out);
  }
  // With the batch norm of its outputs, which is folded in: <norm>.weight, bias, running_mean, running_var.
  Conv2d(const ParameterReader<Exec>& r, const Names& names, const Names& norm, Index in, Index out,
         const Conv2dOptions& options, double eps = 1e-5)
      : o_(options) {
    const Parameter filters = shaped(r, names, in, out, options);
    Tensor<float, 1> bias;
    if (const Names b = names.with(".bias"); options.biased || r.contains(b))
      bias = to_floats(r.tensor(b, {out}));
    const auto read = [&](const char* what) { return to_floats(r.tensor(norm.with(what), {out})); };
    const Tensor<float, 1> scale = read(".weight"), shift = read(".bias"), mean = read(".running_mean"),
                           var = read(".running_var"), values = to_floats(filters);
    r.skip(norm.with(".num_batches_tracked"));
    auto folded = std::make_shared<const Filters>(
        fold_norm_after({values.data(), {out, in / options.groups, options.kernel[0], options.kernel[1]}},
                        bias.view(), {scale.view(), shift.view(), mean.view(), var.view(), eps}));
    weight_ = r.filters({folded->weight.data(), DType::f32, filters.shape, folded}, options.groups);
    bias_ = r.vector(folded->bias);
  }

  explicit operator bool() const { return static_cast<bool>(weight_); }
  // The shape of out for x of this shape.
  std::array<Index, 4> out_shape(const std::array<Index, 4>& x) const {
    const Conv2dSteps& s = o_.steps;
    return {x[0], conv2d_extent(x[1], o_.kernel[0], s.stride[0], s.padding[0], s.dilation[0]),
            conv2d_extent(x[2], o_.kernel[1], s.stride[1], s.padding[1], s.dilation[1]), weight_.outputs()};
  }
  // x [N, H, W, in], out [N, H', W', out] = activation(conv(x) + bias) + residual
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec,
                  View<const float, 4> residual = {}) const {
    conv2d(typename Backend<Exec>::Conv2d{x, weight_, bias_.view(), out, o_.steps, o_.activation,
                                          o_.negative_slope, residual},
           exec);
  }

 private:
  static Parameter shaped(const ParameterReader<Exec>& r, const Names& names, Index in, Index out,
                          const Conv2dOptions& o) {
    if (o.groups < 1 || in % o.groups != 0 || out % o.groups != 0)
      refuse("Conv2d", o.groups, " groups do not divide ", in, " inputs and ", out, " outputs");
    return r.tensor(names.with(".weight"), {out, in / o.groups, o.kernel[0], o.kernel[1]});
  }

  typename Backend<Exec>::Filters weight_;
  typename Backend<Exec>::Vector bias_;
  Conv2dOptions o_;
};

}  // namespace v0
}  // namespace ashlar
