// SPDX-License-Identifier: Apache-2.0
// The heads of restoration networks and the small parts of their layers, against the equations in double.
#include "ashlar/models/reconstruction.hpp"

#include "ashlar/nn/pixel_linear.hpp"
#include "ashlar/nn/residual_conv.hpp"
#include "ashlar/ref/conv2d.hpp"
#include "ashlar/ref/pixel_shuffle.hpp"
#include "ashlar/ref/resize.hpp"
#include "tests/models/restoration_support.hpp"

namespace ashlar {
namespace {

using Image = Tensor<double, 4>;

Image widened(const Tensor<float, 4>& x) {
  Image y(x.shape());
  std::copy_n(x.data(), x.size(), y.data());
  return y;
}

// What the module's convolutions do, by name and in double.
class Equations {
 public:
  explicit Equations(const Parameters& weights) : weights_(weights) {}

  Image conv(const std::string& name, const Image& x, Activation f = Activation::identity, double slope = 0,
             const Image* residual = nullptr) const {
    const Parameter p = weights_.at(name + ".weight");
    const Tensor<double, 1> bias = doubles(name + ".bias"), filters = doubles(name + ".weight");
    const Index area = p.shape.size() == 4 ? p.shape[2] : 1;
    Image y({x.shape()[0], x.shape()[1], x.shape()[2], p.shape[0]});
    ref::conv2d<double>({x.view(),
                         {filters.data(), {p.shape[0], p.shape[1], area, area}},
                         bias.view(),
                         y.view(),
                         1,
                         {{1, 1}, {area / 2, area / 2}},
                         f,
                         slope,
                         residual != nullptr ? residual->view() : View<const double, 4>()});
    return y;
  }
  static Image shuffle(const Image& x, Index by) {
    Image y({x.shape()[0], by * x.shape()[1], by * x.shape()[2], x.shape()[3] / (by * by)});
    ref::pixel_shuffle<double>({x.view(), y.view()});
    return y;
  }
  static Image enlarged(const Image& x, Index rows, Index columns, ResizeMode mode) {
    Image y({x.shape()[0], rows, columns, x.shape()[3]});
    ref::resize<double>({.x = x.view(), .out = y.view(), .mode = mode});
    return y;
  }

 private:
  Tensor<double, 1> doubles(const std::string& name) const {
    const Tensor<float, 1> x = to_floats(weights_.at(name));
    Tensor<double, 1> y(x.shape());
    std::copy_n(x.data(), x.size(), y.data());
    return y;
  }
  const Parameters& weights_;
};

constexpr Activation kLeaky = Activation::leaky_relu;

// Of features g, the network's input x and the size that the image has without padding.
Image equation(const ReconstructionConfig& c, const Equations& e, const Image& g, const Image& x,
               Index height, Index width) {
  if (c.upsampler == Upsampler::convolution)
    return e.conv("conv_last", g, Activation::identity, 0, c.adds_input ? &x : nullptr);
  if (c.upsampler == Upsampler::pixelshuffledirect) return e.shuffle(e.conv("upsample.0", g), c.scale);
  Image a = e.conv("conv_before_upsample.0", g, kLeaky, 0.01);
  if (c.upsampler == Upsampler::nearest_conv) {
    for (Index k = 1, s = 2; s <= c.scale; ++k, s *= 2)
      a = e.conv(concat("conv_up", k), e.enlarged(a, 2 * a.shape()[1], 2 * a.shape()[2], ResizeMode::nearest),
                 kLeaky, 0.2);
    return e.conv("conv_last", e.conv("conv_hr", a, kLeaky, 0.2));
  }
  const bool aux = c.upsampler == Upsampler::pixelshuffle_aux;
  if (aux) a = e.conv("conv_after_aux.0", e.conv("conv_aux", a), kLeaky, 0.01);
  const Index by = c.scale % 3 == 0 ? 3 : 2;
  for (Index s = by, k = 0; s <= c.scale; s *= by, ++k)
    a = e.shuffle(e.conv(concat("upsample.", 2 * k), a), by);
  if (!aux) return e.conv("conv_last", a);
  const Image b =
      e.conv("conv_bicubic", e.enlarged(x, c.scale * height, c.scale * width, ResizeMode::bicubic));
  Image sum(b.shape());
  for (Index n = 0; n < b.shape()[0]; ++n)
    for (Index i = 0; i < b.shape()[1]; ++i)
      for (Index j = 0; j < b.shape()[2]; ++j)
        for (Index k = 0; k < b.shape()[3]; ++k)
          sum.view()(n, i, j, k) = a.view()(n, i, j, k) + b.view()(n, i, j, k);
  return e.conv("conv_last", sum);
}

// `rows` and `columns` of the top left corner.
void expect_close(View<const float, 4> got, const Image& want, Index rows, Index columns) {
  double largest = 0, worst = 0;
  for (Index n = 0; n < want.shape()[0]; ++n)
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j)
        for (Index c = 0; c < want.shape()[3]; ++c) {
          const double w = want.view()(n, i, j, c), d = std::abs(static_cast<double>(got(n, i, j, c)) - w);
          largest = std::max(largest, std::abs(w)), worst = d <= worst ? worst : d;
        }
  EXPECT_LE(worst, 64 * test::kEps * largest);
}

TEST(ReconstructionHead, IsItsEquation) {
  CpuExec exec;
  const Upsampler all[] = {Upsampler::pixelshuffle, Upsampler::pixelshuffledirect, Upsampler::nearest_conv,
                           Upsampler::convolution, Upsampler::pixelshuffle_aux};
  for (Upsampler u : all)
    for (Index scale : {1, 2, 3, 4, 8}) {
      if ((u == Upsampler::convolution) != (scale == 1)) continue;
      if (u == Upsampler::nearest_conv && scale != 2 && scale != 4) continue;
      const ReconstructionConfig c{u, 10, 6, 3, 3, scale, scale == 1};
      ParameterMap weights;
      test::RecordedParameters recorded(weights);
      const ReconstructionHead<CpuExec> head(ParameterReader<CpuExec>(recorded, exec), c);
      const auto g = test::random_image(2, 7, 5, 10), x = test::random_image(2, 7, 5, 3);
      Tensor<float, 4> out({2, 7 * scale, 5 * scale, 3});
      const Index height = 6, width = 4;
      head(g.view(), x.view(), {height, width}, out.view(), exec);
      const Image want = equation(c, Equations(weights), widened(g), widened(x), height, width);
      expect_close(out.view(), want, height * scale, width * scale);
    }
}

TEST(ResidualConv, IsOneConvolutionOrThree) {
  CpuExec exec;
  const auto x = test::random_image(2, 5, 6, 12), r = test::random_image(2, 5, 6, 12);
  for (ResidualConvKind kind : {ResidualConvKind::one, ResidualConvKind::three}) {
    ParameterMap weights;
    test::RecordedParameters recorded(weights);
    const ResidualConv<CpuExec> conv(ParameterReader<CpuExec>(recorded, exec), "conv", 12, kind);
    const Equations e(weights);
    Tensor<float, 4> out(r);
    conv(x.view(), out.view(), out.view(), exec);
    const Image residual = widened(r);
    Image want;
    if (kind == ResidualConvKind::one)
      want = e.conv("conv", widened(x), Activation::identity, 0, &residual);
    else
      want = e.conv("conv.4", e.conv("conv.2", e.conv("conv.0", widened(x), kLeaky, 0.2), kLeaky, 0.2),
                    Activation::identity, 0, &residual);
    expect_close(out.view(), want, 5, 6);
  }
}

TEST(PixelLinear, IsALinearLayerAtEachPixel) {
  CpuExec exec;
  ParameterMap weights;
  test::RecordedParameters recorded(weights);
  const ParameterReader<CpuExec> r(recorded, exec);
  const PixelLinear<CpuExec> plain(r, "a", 9, 14, true), active(r, "b", 9, 14, true, Activation::gelu);
  const auto x = test::random_image(2, 5, 3, 9), residual = test::random_image(2, 5, 3, 14);
  const Equations e(weights);
  const Image added = widened(residual);
  Tensor<float, 4> out(residual);
  plain(x.view(), out.view(), exec, out.view());
  expect_close(out.view(), e.conv("a", widened(x), Activation::identity, 0, &added), 5, 3);
  active(x.view(), out.view(), exec);
  expect_close(out.view(), e.conv("b", widened(x), Activation::gelu), 5, 3);
  EXPECT_EQ(r.count().elements, 2 * (9 * 14 + 14));
}

}  // namespace
}  // namespace ashlar
