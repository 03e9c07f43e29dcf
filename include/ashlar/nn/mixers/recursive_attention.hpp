// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>

#include "ashlar/nn/conv2d.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/nn/pixel_linear.hpp"
#include "ashlar/nn/tokens.hpp"
#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {

struct RecursiveAttentionConfig {
  Index dim = 0, heads = 0;
  Index reduced = 0;   // channels of queries and keys: "c_ratio" of dim
  double ratio = 0.5;  // "c_ratio" itself, which the scale is made of
  bool biased = true;  // q, k, v: "qkv_bias"
  float norm_eps = 1e-5f;
};

// Recursive-generalization self-attention, RG-SA (RGT: Chen et al., 2024): all pixels attend to a small map
// that one depthwise convolution, of 4 x 4 patches and applied T times over, makes of the image:
//   r = gelu(norm_act.0(conv(dwconv(reduction1^T(x)))));  q = Wq x, k = Wk r, v = Wv r, v += cpe(v)
//   out = proj(softmax(q k^T / sqrt(dim / heads c_ratio)) v),  T = max(2, floor(log4(side / 16)))
// for the longer side. There is neither a window nor a position bias. Where the authors' T leaves nothing of
// the shorter side, which they do not run, it is the largest that does.
template <class Exec>
class RecursiveAttention {
 public:
  static constexpr Index kSmallest = 16;  // sides that two reductions leave something of

  RecursiveAttention(const ParameterReader<Exec>& r, const RecursiveAttentionConfig& c)
      : c_(c),
        reduction_(r, "reduction1", c.dim, c.dim, Conv2dOptions::patches(4).grouped(c.dim)),
        dwconv_(r, "dwconv", c.dim, c.dim, Conv2dOptions::same(3).grouped(c.dim)),
        conv_(r, "conv", c.dim, c.reduced, Conv2dOptions::same(1)),
        cpe_(r, "cpe", c.dim, c.dim, Conv2dOptions::same(3).grouped(c.dim)),
        norm_(Norm<Exec>::layer(r, "norm_act.0", c.reduced, c.norm_eps)),
        q_(r, "q", c.dim, c.reduced, c.biased),
        k_(r, "k", c.reduced, c.reduced, c.biased),
        v_(r, "v", c.reduced, c.dim, c.biased),
        proj_(r, "proj", c.dim, c.dim, true) {
    if (c.heads < 1 || c.dim % c.heads != 0 || c.reduced % c.heads != 0)
      refuse("RecursiveAttention", c.heads, " heads do not divide ", c.dim, " and ", c.reduced, " channels");
  }

  // How often an image is reduced.
  static Index reductions(std::array<Index, 2> image) {
    Index times = 2;
    for (Index side = std::max(image[0], image[1]) / 16, n = 4, t = 1; n <= side; n *= 4, ++t)
      times = std::max(times, t);
    while (times > 2 && std::min(image[0], image[1]) >> 2 * times == 0) --times;
    return times;
  }
  // Scratch memory, for each pixel; the first reduction is a sixteenth.
  Index floats_per_pixel() const { return c_.dim + c_.reduced + c_.dim / 8; }

  // x, out, residual [N, H, W, C], sides of at least kSmallest; the residual is added, and `out` may be `x`
  // or it.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec,
                  View<const float, 4> residual = {}) const {
    const auto [images, height, width, channels] = x.shape;
    if (channels != c_.dim || height < kSmallest || width < kSmallest)
      refuse("RecursiveAttention", "x has shape ", to_string(x.shape), ", expected sides of at least ",
             kSmallest, " and ", c_.dim, " channels");
    typename Exec::Scratch scratch(exec);
    View<const float, 4> m = x;
    for (Index i = 0; i < reductions({height, width}); ++i) {
      const auto less = scratch.floats(images, m.shape[1] / 4, m.shape[2] / 4, channels);
      reduction_(m, less, exec);
      m = less;
    }
    const Index keys = m.shape[1] * m.shape[2];
    const auto map = [&](Index depth) { return scratch.floats(m.shape[0], m.shape[1], m.shape[2], depth); };
    const auto mixed = map(channels), r = map(c_.reduced), k = map(c_.reduced), plain = map(channels),
               v = map(channels);
    dwconv_(m, mixed, exec);
    conv_(mixed, r, exec);
    norm_(as_tokens(r), as_tokens(r), exec);
    activate(Activate{as_tokens(r), {}, as_tokens(r), Activation::gelu}, exec);
    k_(r, k, exec);
    v_(r, plain, exec);
    cpe_(plain, v, exec, plain);

    const Index tokens = height * width, key_dim = c_.reduced / c_.heads, dim = channels / c_.heads;
    const auto q = scratch.floats(images, height, width, c_.reduced),
               y = scratch.floats(images, height, width, channels);
    q_(x, q, exec);
    typename Backend<Exec>::HostScratch host(exec);
    const auto starts = host.template get<Index>(images + 1);
    const auto sequences = host.template get<KeyValue>(images);
    const View<const float, 3> all_keys = as_tokens(k).split(1, key_dim),
                               all_values = as_tokens(v).split(1, dim);
    for (Index n = 0; n < images; ++n) {
      starts(n) = n * tokens;
      sequences(n) = KeyValue{all_keys.slice(0, n * keys, (n + 1) * keys),
                              all_values.slice(0, n * keys, (n + 1) * keys)};
    }
    starts(images) = images * tokens;
    SoftmaxAttention a{.q = as_tokens(q).split(1, key_dim)};
    a.offsets = Offsets({starts.data, static_cast<std::size_t>(images + 1)});
    a.sequences = {sequences.data, static_cast<std::size_t>(images)};
    a.out = as_tokens(y).split(1, dim);
    a.score.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(dim) * c_.ratio));
    softmax_attention(a, exec);
    proj_(y, out, exec, residual);
  }

 private:
  RecursiveAttentionConfig c_;
  Conv2d<Exec> reduction_, dwconv_, conv_, cpe_;
  Norm<Exec> norm_;
  PixelLinear<Exec> q_, k_, v_, proj_;
};

}  // namespace v0
}  // namespace ashlar
