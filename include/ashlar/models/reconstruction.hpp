// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/conv2d.hpp"
#include "ashlar/ops/map_norm.hpp"
#include "ashlar/ops/pixel_shuffle.hpp"
#include "ashlar/ops/resize.hpp"

namespace ashlar {
inline namespace v0 {

// How a restoration network makes pixels of its features, as "upsampler" calls it.
enum class Upsampler : std::uint8_t {
  pixelshuffle,        // classical super-resolution
  pixelshuffledirect,  // lightweight
  nearest_conv,        // "nearest+conv", for photographs
  convolution,         // "": the size stays, for noise and compression artifacts
  pixelshuffle_aux,    // Swin2SR, for compressed images
};

struct ReconstructionConfig {
  Upsampler upsampler = Upsampler::pixelshuffle;
  Index channels = 0;  // of the features
  Index inner = 0;     // between convolutions ("num_feat"); 0: there are none
  Index in_channels = 3, out_channels = 3, scale = 1;
  bool adds_input = false;  // convolution: to the network's input (SwinIR), or not (DLGSANet)
};

// Pixels from features g [N, H, W, C], for an enlargement by s = scale; u(.) is a leaky ReLU:
//   pixelshuffle        conv_last(shuffle(u_0.01(conv_before_upsample(g)))), where shuffle is a convolution
//                       and a pixel shuffle by 2, log2 s times, or by 3 once
//   pixelshuffledirect  one convolution and one pixel shuffle by s
//   nearest_conv        a = u_0.01(conv_before_upsample(g)); a = u_0.2(conv_up(enlarge a twice)), log2 s
//                       times; conv_last(u_0.2(conv_hr(a)))
//   convolution         conv_last(g) [+ x]
//   pixelshuffle_aux    aux = conv_aux(u_0.01(conv_before_upsample(g))); conv_last(shuffle(u_0.01(
//                       conv_after_aux(aux))) + conv_bicubic(bicubic(x)))
// The last enlarges x, padding included, to s times the size that the image has without it, as the authors
// do: on a ragged image it squeezes. Names are the authors', or those of Hugging Face.
template <class Exec>
class ReconstructionHead {
 public:
  ReconstructionHead() = default;
  ReconstructionHead(const ParameterReader<Exec>& r, const ReconstructionConfig& c) : c_(c) {
    const auto leaky = [](float slope) { return Conv2dOptions().with(Activation::leaky_relu, slope); };
    if (c.upsampler == Upsampler::pixelshuffledirect) {
      steps_.push_back(
          {c.scale, {r, {"upsample.0", "upsample.conv"}, c.channels, c.scale * c.scale * c.out_channels}});
      return;
    }
    const Names last{"conv_last", "upsample.final_convolution", "final_convolution"};
    if (c.upsampler == Upsampler::convolution) {
      last_ = Conv2d<Exec>(r, last, c.channels, c.out_channels);
      return;
    }
    before_ = Conv2d<Exec>(r, {"conv_before_upsample.0", "upsample.conv_before_upsample"}, c.channels,
                           c.inner, leaky(0.01f));
    last_ = Conv2d<Exec>(r, last, c.inner, c.out_channels);
    if (c.upsampler == Upsampler::nearest_conv) {
      for (Index s = 2, k = 1; s <= c.scale; s *= 2, ++k)
        steps_.push_back({2, spelled(r, concat("conv_up", k), c.inner, c.inner, leaky(0.2f))});
      hr_ = spelled(r, "conv_hr", c.inner, c.inner, leaky(0.2f));
      return;
    }
    if (c.upsampler == Upsampler::pixelshuffle_aux) {
      bicubic_ = spelled(r, "conv_bicubic", c.in_channels, c.inner);
      aux_ = spelled(r, "conv_aux", c.inner, c.out_channels);
      after_aux_ = spelled(r, "conv_after_aux.0", c.out_channels, c.inner, leaky(0.01f));
    }
    const Index by = c.scale % 3 == 0 ? 3 : 2;
    for (Index s = by, k = 0; s <= c.scale; s *= by, ++k) {
      const std::string mine = concat("upsample.", 2 * k),
                        theirs = concat("upsample.upsample.convolution_", k);
      const Names names{mine.c_str(), theirs.c_str(), "upsample.upsample.convolution"};
      steps_.push_back({by, {r, names, c.inner, by * by * c.inner}});
    }
  }

  // Scratch memory, for each pixel of g.
  Index floats_per_pixel() const {
    const Index s2 = c_.scale * c_.scale;
    if (c_.upsampler == Upsampler::convolution) return 0;
    if (c_.upsampler == Upsampler::pixelshuffledirect) return s2 * c_.out_channels;
    Index maps = 1 + s2, scale = 1;  // the features, each enlargement of them, and what the last one needs
    for (const Step& step : steps_) scale *= step.by, maps += scale * scale;
    return maps * c_.inner + (c_.upsampler == Upsampler::pixelshuffle_aux ? c_.out_channels : 0);
  }

  // g [N, H, W, C]; x [N, H, W, in_channels], the network's input; out [N, s H, s W, out_channels], of which
  // the caller keeps s `image` pixels. `aux` [N, H, W, out_channels] may be empty.
  void operator()(View<const float, 4> g, View<const float, 4> x, std::array<Index, 2> image,
                  View<float, 4> out, Exec& exec, View<float, 4> aux = {}) const {
    typename Exec::Scratch scratch(exec);
    if (c_.upsampler == Upsampler::convolution)
      return last_(g, out, exec, c_.adds_input ? x : View<const float, 4>());
    if (c_.upsampler == Upsampler::pixelshuffledirect) return enlarge(steps_[0], g, out, exec);
    const auto map = [&](Index scale) {
      return scratch.floats(g.shape[0], scale * g.shape[1], scale * g.shape[2], c_.inner);
    };
    View<float, 4> a = map(1);
    before_(g, a, exec);
    if (c_.upsampler == Upsampler::pixelshuffle_aux) {
      if (!aux) aux = scratch.floats(g.shape[0], g.shape[1], g.shape[2], c_.out_channels);
      aux_(a, aux, exec);
      after_aux_(aux, a, exec);
    }
    Index scale = 1;
    for (const Step& step : steps_) {
      const View<float, 4> b = map(scale *= step.by);
      enlarge(step, a, b, exec);
      a = b;
    }
    if (c_.upsampler == Upsampler::pixelshuffle_aux) return finish_aux(a, x, image, out, exec);
    if (hr_) {
      const View<float, 4> b = map(scale);
      hr_(a, b, exec);
      a = b;
    }
    last_(a, out, exec);
  }

 private:
  struct Step {
    Index by;
    Conv2d<Exec> conv;
  };

  static Conv2d<Exec> spelled(const ParameterReader<Exec>& r, const std::string& name, Index in, Index out,
                              const Conv2dOptions& options = {}) {
    return {r, Names{name.c_str(), concat("upsample.", name).c_str()}, in, out, options};
  }

  void enlarge(const Step& step, View<const float, 4> a, View<float, 4> b, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    if (c_.upsampler == Upsampler::nearest_conv) {
      const auto wide = scratch.floats(b.shape[0], b.shape[1], b.shape[2], c_.inner);
      resize(Resize{.x = a, .out = wide, .mode = ResizeMode::nearest}, exec);
      return step.conv(wide, b, exec);
    }
    const auto deep = scratch.floats(a.shape[0], a.shape[1], a.shape[2], step.by * step.by * b.shape[3]);
    step.conv(a, deep, exec);
    pixel_shuffle(PixelShuffle{deep, b}, exec);
  }

  // Only s `image` pixels see the enlarged input and each other.
  void finish_aux(View<float, 4> a, View<const float, 4> x, std::array<Index, 2> image, View<float, 4> out,
                  Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const Index rows = c_.scale * image[0], columns = c_.scale * image[1];
    const auto wide = scratch.floats(x.shape[0], rows, columns, c_.in_channels);
    resize(Resize{.x = x, .out = wide, .mode = ResizeMode::bicubic}, exec);
    const View<float, 4> part = a.slice(1, 0, rows).slice(2, 0, columns);
    bicubic_(wide, part, exec, part);
    last_(part, out.slice(1, 0, rows).slice(2, 0, columns), exec);
  }

  ReconstructionConfig c_;
  Conv2d<Exec> before_, last_, hr_, bicubic_, aux_, after_aux_;
  std::vector<Step> steps_;
};

}  // namespace v0
}  // namespace ashlar
