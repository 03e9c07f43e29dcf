// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/swinir.hpp"

namespace ashlar {
inline namespace v0 {

// Swin2SR (Conde et al., 2022): SwinIR with the layers of SwinV2, and a linear map of each pixel behind every
// convolution of a group. Checkpoints of the authors, and of Hugging Face.
struct Swin2srConfig : SwinirConfig {
  bool hugging_face = false;
  float shift_mask = -100;  // Hugging Face adds the authors' mask twice
  Activation activation = Activation::gelu;

  static Swin2srConfig from(const Value& config, const Parameters& parameters);
  RestorationNames names() const;
  SwinBlockConfig block(Index group, Index index) const {
    const Index shift = shifted && index % 2 == 1 ? window / 2 : 0;
    SwinBlockConfig b =
        SwinBlockConfig::v2(channels, heads[static_cast<std::size_t>(group)], window, shift, hidden);
    b.activation = activation, b.attention.shift_mask = shift_mask;
    return b;
  }
};

// y = embed(conv(blocks(x))) + x
template <class Exec>
class Swin2srGroup final : public RestorationGroup<Exec> {
 public:
  Swin2srGroup(const Swin2srConfig& c, Index group, const ParameterReader<Exec>& r)
      : channels_(c.channels),
        conv_(r, "conv", c.channels, c.connection),
        embed_(r, {"patch_embed.proj", "patch_embed.projection"}, c.channels, c.channels,
               Conv2dOptions::same(1)) {
    const char* blocks = c.hugging_face ? "layers." : "residual_group.blocks.";
    for (Index i = 0; i < c.depths[static_cast<std::size_t>(group)]; ++i)
      blocks_.emplace_back(r.scope(concat(blocks, i)), c.block(group, i));
  }

  void forward(View<float, 4> x, Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const auto y = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    const auto z = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    Backend<Exec>::copy(as_tokens(x).split(1, x.shape[3]), as_tokens(y).split(1, x.shape[3]), exec);
    for (const SwinBlock<Exec>& block : blocks_) block(y, exec);
    conv_(y, {}, z, exec);
    embed_(z, x, exec, x);
  }
  Index floats_per_pixel() const override {
    return 2 * channels_ + std::max(blocks_.front().floats_per_pixel(), conv_.floats_per_pixel());
  }
  const std::vector<SwinBlock<Exec>>& blocks() const { return blocks_; }

 private:
  Index channels_;
  std::vector<SwinBlock<Exec>> blocks_;
  ResidualConv<Exec> conv_;
  Conv2d<Exec> embed_;
};

template <class Exec>
std::unique_ptr<RestorationNet<Exec>> load_swin2sr(const Value& config, const Parameters& parameters,
                                                   Exec& exec) {
  const Swin2srConfig c = Swin2srConfig::from(config, parameters);
  RestorationInfo info = c.info();
  info.multiple = c.multiple;
  const auto group = [&](Index index, const ParameterReader<Exec>& r) {
    return std::make_unique<Swin2srGroup<Exec>>(c, index, r);
  };
  return make_restoration_net(c, info, parameters, exec, group, c.names());
}

extern template class Swin2srGroup<CpuExec>;

}  // namespace v0
}  // namespace ashlar
