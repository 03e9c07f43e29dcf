// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/reconstruction.hpp"
#include "ashlar/models/restoration_model.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/nn/residual_conv.hpp"
#include "ashlar/nn/tokens.hpp"

namespace ashlar {
inline namespace v0 {

// A group of layers of a restoration network: what an architecture is made of (RSTB of SwinIR, RHAG of HAT,
// RDG of DRCT, ...).
template <class Exec>
struct RestorationGroup {
  virtual ~RestorationGroup() = default;
  // x [N, H, W, C], packed, in place.
  virtual void forward(View<float, 4> x, Exec& exec) const = 0;
  // Scratch memory, for each pixel.
  virtual Index floats_per_pixel() const = 0;
};

// Where a checkpoint has what the networks have in common; spellings that are alternatives.
struct RestorationNames {
  Names first = "conv_first", embed = "", embed_norm = "patch_embed.norm", norm = "norm";
  Names after_body = "conv_after_body";
  std::string groups = "layers";
  // Tensors that no part asks for and that may be there all the same.
  bool (*ignored)(std::string_view name) = [](std::string_view) { return false; };
};

// What the authors' configurations say in the same words, and what the shapes of a checkpoint say.
struct RestorationConfig {
  std::string architecture;
  Index channels = 0, groups = 0;  // "embed_dim", the length of "depths"
  ReconstructionConfig reconstruction;
  ResidualConvKind connection = ResidualConvKind::one;
  float range = 1;          // "img_range"
  std::vector<float> mean;  // of each channel, of the image and of the result
  float norm_eps = 1e-5f;
  // Hugging Face's network adds the image itself, neither normalised nor padded, where the authors' adds x.
  bool adds_image = false;
  RestorationInfo info() const;  // without `multiple`, `global`, and what a loaded model counts

  // Error("InvalidConfig") where both say something and do not agree, Error("UnsupportedConfig") for what has
  // no implementation. `config` may be null.
  static RestorationConfig from(const Value& config, const Parameters& parameters,
                                const RestorationNames& names = {});
};

// The frame that SwinIR (Liang et al., 2021) gave to networks of groups:
//   x = range (image - mean);  f = first(x);  t = groups(embed_norm(embed(f)))
//   out = head(after_body(norm(t)) + f) / range + mean
// A part that an architecture does not have is left out.
template <class Exec>
class RestorationNet final : public RestorationModel<Exec> {
 public:
  struct Parts {
    Conv2d<Exec> first, embed;
    Norm<Exec> embed_norm, norm;
    std::vector<std::unique_ptr<RestorationGroup<Exec>>> groups;
    ResidualConv<Exec> after_body;
    ReconstructionHead<Exec> head;
    typename Backend<Exec>::Vector scale, shift, scale_back, shift_back;  // of channels, in and out
  };
  RestorationNet(const RestorationConfig& c, RestorationInfo info, Parts parts)
      : RestorationModel<Exec>(completed(std::move(info), c, parts)), c_(c), parts_(std::move(parts)) {}

  void forward(View<const float, 4> image, View<float, 4> out, Exec& exec) const override {
    forward(image, out, {}, exec);
  }
  // With Swin2SR's auxiliary result [N, H, W, out_channels], if `aux` is not empty.
  void forward(View<const float, 4> image, View<float, 4> out, View<float, 4> aux, Exec& exec) const;

  // x of an image, and the result of the network from what the head gives; for those who run the parts.
  void normalize(View<const float, 4> image, View<float, 4> x, Exec& exec) const {
    channel_affine(ChannelAffine{image, parts_.scale.view(), parts_.shift.view(), x}, exec);
  }
  void restore(View<const float, 4> y, View<float, 4> out, Exec& exec) const {
    channel_affine(ChannelAffine{y, parts_.scale_back.view(), parts_.shift_back.view(), out}, exec);
  }
  const Parts& parts() const { return parts_; }

 private:
  static RestorationInfo completed(RestorationInfo info, const RestorationConfig& c, const Parts& parts);

  RestorationConfig c_;
  Parts parts_;
};

extern template class RestorationNet<CpuExec>;

// The first convolution, the head, and the constants of the image's channels.
template <class Exec>
typename RestorationNet<Exec>::Parts restoration_ends(const RestorationConfig& c,
                                                      const ParameterReader<Exec>& r,
                                                      const RestorationNames& names,
                                                      const Conv2dOptions& first = {}) {
  typename RestorationNet<Exec>::Parts parts;
  const ReconstructionConfig& ends = c.reconstruction;
  parts.first = Conv2d<Exec>(r, names.first, ends.in_channels, c.channels, first);
  parts.head = ReconstructionHead<Exec>(r, ends);
  Tensor<float, 1> scale({ends.in_channels}), shift({ends.in_channels}), scale_back({ends.out_channels}),
      shift_back({ends.out_channels});
  for (Index i = 0; i < ends.in_channels; ++i)
    scale.data()[i] = c.range, shift.data()[i] = -c.mean[static_cast<std::size_t>(i)] * c.range;
  for (Index i = 0; i < ends.out_channels; ++i)
    scale_back.data()[i] = 1 / c.range, shift_back.data()[i] = c.mean[static_cast<std::size_t>(i)];
  parts.scale = r.vector(std::move(scale)), parts.shift = r.vector(std::move(shift));
  parts.scale_back = r.vector(std::move(scale_back)), parts.shift_back = r.vector(std::move(shift_back));
  return parts;
}

// Reads what the networks have in common and each group through group(index, reader of "<groups>.<index>.").
// Error("UnusedTensor") for tensors that no part asked for. `info` is c.info() with what the architecture
// adds.
template <class Exec, class MakeGroup>
std::unique_ptr<RestorationNet<Exec>> make_restoration_net(const RestorationConfig& c, RestorationInfo info,
                                                           const Parameters& parameters, Exec& exec,
                                                           MakeGroup&& group,
                                                           const RestorationNames& names = {}) {
  const ParameterReader<Exec> r(parameters, exec);
  typename RestorationNet<Exec>::Parts parts = restoration_ends(c, r, names);
  if (!names.embed.spellings.front().empty())
    parts.embed = Conv2d<Exec>(r, names.embed, c.channels, c.channels, Conv2dOptions::same(1));
  parts.embed_norm = Norm<Exec>::layer(r, names.embed_norm, c.channels, c.norm_eps);
  parts.norm = Norm<Exec>::layer(r, names.norm, c.channels, c.norm_eps);
  parts.after_body = ResidualConv<Exec>(r, names.after_body, c.channels, c.connection);
  for (Index i = 0; i < c.groups; ++i)
    parts.groups.push_back(group(i, r.scope(concat(names.groups, ".", i))));
  r.expect_all_read(names.ignored);
  info.parameters = r.count().elements;
  return std::make_unique<RestorationNet<Exec>>(c, std::move(info), std::move(parts));
}

}  // namespace v0
}  // namespace ashlar
