// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/restoration_net.hpp"
#include "ashlar/nn/swin_block.hpp"

namespace ashlar {
inline namespace v0 {

// SwinIR (Liang et al., 2021): groups of Swin layers, each closed by a convolution.
struct SwinirConfig : RestorationConfig {
  std::vector<Index> depths, heads;  // of each group
  Index window = 0, hidden = 0;
  Index multiple = 0;   // to which images are padded: "window_size"
  bool shifted = true;  // false: trained on images of one window ("img_size" is no more than that)

  static SwinirConfig from(const Value& config, const Parameters& parameters);
  SwinBlockConfig block(Index group, Index index) const {
    const Index shift = shifted && index % 2 == 1 ? window / 2 : 0;
    return SwinBlockConfig::v1(channels, heads[static_cast<std::size_t>(group)], window, shift, hidden);
  }
};

// y = conv(blocks(x)) + x: a residual Swin transformer block, RSTB.
template <class Exec>
class SwinirGroup final : public RestorationGroup<Exec> {
 public:
  SwinirGroup(const SwinirConfig& c, Index group, const ParameterReader<Exec>& r)
      : channels_(c.channels), conv_(r, "conv", c.channels, c.connection) {
    for (Index i = 0; i < c.depths[static_cast<std::size_t>(group)]; ++i)
      blocks_.emplace_back(r.scope(concat("residual_group.blocks.", i)), c.block(group, i));
  }

  void forward(View<float, 4> x, Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const auto y = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    Backend<Exec>::copy(as_tokens(x).split(1, x.shape[3]), as_tokens(y).split(1, x.shape[3]), exec);
    for (const SwinBlock<Exec>& block : blocks_) block(y, exec);
    conv_(y, x, x, exec);
  }
  Index floats_per_pixel() const override {
    return channels_ + std::max(blocks_.front().floats_per_pixel(), conv_.floats_per_pixel());
  }
  const std::vector<SwinBlock<Exec>>& blocks() const { return blocks_; }

 private:
  Index channels_;
  std::vector<SwinBlock<Exec>> blocks_;
  ResidualConv<Exec> conv_;
};

template <class Exec>
std::unique_ptr<RestorationNet<Exec>> load_swinir(const Value& config, const Parameters& parameters,
                                                  Exec& exec) {
  const SwinirConfig c = SwinirConfig::from(config, parameters);
  RestorationInfo info = c.info();
  info.multiple = c.multiple;
  return make_restoration_net(c, info, parameters, exec, [&](Index group, const ParameterReader<Exec>& r) {
    return std::make_unique<SwinirGroup<Exec>>(c, group, r);
  });
}

extern template class SwinirGroup<CpuExec>;

}  // namespace v0
}  // namespace ashlar
