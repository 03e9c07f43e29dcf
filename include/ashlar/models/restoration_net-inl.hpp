// SPDX-License-Identifier: Apache-2.0
// The members of RestorationModel and RestorationNet, for those who instantiate them for an execution
// context.
#pragma once
#include "ashlar/models/restoration_net.hpp"
#include "ashlar/ops/pad2d.hpp"
#include "ashlar/ops/residual_add.hpp"

namespace ashlar {
inline namespace v0 {

template <class Exec>
auto RestorationModel<Exec>::padded(Size image) const -> Size {
  for (Index& side : image) {
    side = std::max(side, info_.smallest);
    const Index whole = side / info_.multiple * info_.multiple;
    if (info_.multiple > 1 && (whole != side || info_.ragged == RaggedImage::symmetric))
      side = whole + info_.multiple;
  }
  return image;
}

template <class Exec>
void RestorationModel<Exec>::run(View<const float, 4> image, View<float, 4> out, Exec& exec) const {
  const auto [images, height, width, channels] = image.shape;
  if (images < 1 || height < 1 || width < 1)
    refuse(info_.architecture, "image has shape ", to_string(image.shape), ", expected at least one pixel");
  expect_shape(info_.architecture, "image", image, {images, height, width, info_.in_channels});
  expect_shape(info_.architecture, "out", out,
               {images, info_.scale * height, info_.scale * width, info_.out_channels});
  {
    // All of it in one piece: the context's memory, grown step by step, would be twice as much.
    typename Exec::Scratch whole(exec);
    whole.template get<std::byte>(images * scratch_bytes({height, width}));
  }
  typename Exec::Scratch scratch(exec);
  const Size target = padded({height, width});
  // A side of n pixels can be mirrored to 2 n - 1, or with the edge repeated to 2 n: step by step, further.
  for (View<const float, 4> x = image;;) {
    if (Size{x.shape[1], x.shape[2]} == target) return forward(x, out, exec);
    Size next{x.shape[1], x.shape[2]};
    bool single = false;
    for (std::size_t a = 0; a < 2; ++a) single = single || (next[a] == 1 && target[a] > 1);
    const bool repeats = single || info_.ragged == RaggedImage::symmetric;
    for (std::size_t a = 0; a < 2; ++a)
      if (!single || next[a] == 1) next[a] = std::min(target[a], 2 * next[a] - (repeats ? 0 : 1));
    const auto wider = scratch.floats(images, next[0], next[1], channels);
    pad2d(Pad2d{x, wider, repeats ? PadMode::symmetric : PadMode::reflect}, exec);
    x = wider;
  }
}

template <class Exec>
RestorationInfo RestorationNet<Exec>::completed(RestorationInfo info, const RestorationConfig& c,
                                                const Parts& parts) {
  const Index s = c.reconstruction.scale;
  Index inside = parts.head.floats_per_pixel() + s * s * c.reconstruction.out_channels;
  inside = std::max(inside, parts.after_body.floats_per_pixel());
  for (const auto& group : parts.groups) inside = std::max(inside, group->floats_per_pixel());
  info.floats_per_pixel = 2 * c.reconstruction.in_channels + 2 * c.channels + inside;
  return info;
}

template <class Exec>
void RestorationNet<Exec>::forward(View<const float, 4> image, View<float, 4> out, View<float, 4> aux,
                                   Exec& exec) const {
  const Index images = image.shape[0], height = image.shape[1], width = image.shape[2];
  const Index channels = c_.reconstruction.in_channels, scale = c_.reconstruction.scale;
  const std::array<Index, 2> wanted{out.shape[1] / scale, out.shape[2] / scale};
  expect_shape(c_.architecture, "image", image, {images, height, width, channels});
  if (wanted[0] > height || wanted[1] > width)
    refuse(c_.architecture, "out has shape ", to_string(out.shape), ", expected no more than ",
           scale * height, " x ", scale * width, " pixels");
  expect_shape(c_.architecture, "out", out,
               {images, scale * wanted[0], scale * wanted[1], c_.reconstruction.out_channels});
  typename Exec::Scratch scratch(exec);
  const auto map = [&](Index by, Index depth) {
    return scratch.floats(images, by * height, by * width, depth);
  };
  const View<float, 4> x = map(1, channels), f = map(1, c_.channels), t = map(1, c_.channels);
  normalize(image, x, exec);
  parts_.first(x, f, exec);
  View<const float, 4> embedded = f;
  if (parts_.embed) parts_.embed(f, t, exec), embedded = t;
  if (parts_.embed_norm)
    parts_.embed_norm(as_tokens(embedded), as_tokens(t), exec);
  else if (!parts_.embed)
    Backend<Exec>::copy(View<const float, 3>(f.data, {1, images * height * width, c_.channels}),
                        {t.data, {1, images * height * width, c_.channels}}, exec);
  for (const auto& group : parts_.groups) group->forward(t, exec);
  if (parts_.norm) parts_.norm(as_tokens(t), as_tokens(t), exec);
  if (parts_.after_body)
    parts_.after_body(t, f, f, exec);
  else
    residual_add(ResidualAdd{as_tokens(t), as_tokens(f)}, exec);

  View<const float, 4> seen = x;
  if (c_.adds_image) {
    seen = image;
    if (c_.reconstruction.upsampler == Upsampler::pixelshuffle_aux)
      seen = image.slice(1, 0, wanted[0]).slice(2, 0, wanted[1]);
  }
  const View<float, 4> y = map(scale, c_.reconstruction.out_channels);
  parts_.head(f, seen, wanted, y, exec, aux);
  restore(y.slice(1, 0, out.shape[1]).slice(2, 0, out.shape[2]), out, exec);
  if (aux) restore(aux, aux, exec);
}

}  // namespace v0
}  // namespace ashlar
