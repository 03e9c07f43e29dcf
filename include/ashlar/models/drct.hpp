// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/swinir.hpp"
#include "ashlar/ops/residual_add.hpp"

namespace ashlar {
inline namespace v0 {

// DRCT (Hsu et al., 2024): SwinIR with dense connections inside each group.
struct DrctConfig : SwinirConfig {
  static constexpr Index kLayers = 5;  // of a group
  Index growth = 0;                    // "gc"
  std::vector<std::array<Index, kLayers>> layer_heads;
  std::array<Index, kLayers> layer_hidden{};  // of each layer's MLP

  static DrctConfig from(const Value& config, const Parameters& parameters);
  // Layer i sees the group's input and what i layers before it have added.
  Index width(Index i) const { return channels + i * growth; }
  SwinBlockConfig layer(Index group, Index i) const {
    const Index shift = shifted && i % 2 == 1 ? window / 2 : 0;
    const auto at = static_cast<std::size_t>(i);
    return SwinBlockConfig::v1(width(i), layer_heads[static_cast<std::size_t>(group)][at], window, shift,
                               layer_hidden[at]);
  }
};

// RDG, the residual dense group: with [.] the channels beside each other,
//   x_i = u(adjust_i(swin_i([x, x_1, ..., x_{i-1}]))), i = 1 to 4
//   y = x + 0.2 adjust_5(swin_5([x, x_1, ..., x_4]))
// where u is a leaky ReLU of slope 0.2. One buffer grows: each x_i is written behind what is there.
template <class Exec>
class DrctGroup final : public RestorationGroup<Exec> {
 public:
  DrctGroup(const DrctConfig& c, Index group, const ParameterReader<Exec>& r)
      : channels_(c.channels), growth_(c.growth) {
    const Conv2dOptions plain = Conv2dOptions::same(1);
    for (Index i = 0; i < DrctConfig::kLayers; ++i) {
      const bool last = i + 1 == DrctConfig::kLayers;
      layers_.emplace_back(r.scope(concat("swin", i + 1)), c.layer(group, i));
      adjust_.emplace_back(r, concat("adjust", i + 1), c.width(i), last ? c.channels : c.growth,
                           last ? plain : plain.with(Activation::leaky_relu, 0.2f));
    }
  }

  void forward(View<float, 4> x, Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const auto [images, height, width, channels] = x.shape;
    const Index tokens = images * height * width, whole = channels_ + (DrctConfig::kLayers - 1) * growth_;
    const auto dense = scratch.floats(images, height, width, whole);
    const auto seen = scratch.floats(tokens * whole);
    copy(x, dense.slice(3, 0, channels_), exec);
    Index filled = channels_;
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i, filled += growth_) {
      const View<float, 4> t(seen.data, {images, height, width, filled});
      copy(dense.slice(3, 0, filled), t, exec);
      layers_[i](t, exec);
      adjust_[i](t, dense.slice(3, filled, filled + growth_), exec);
    }
    layers_.back()(dense, exec);
    const View<float, 4> y(seen.data, x.shape);
    adjust_.back()(dense, y, exec);
    residual_add(ResidualAdd{.x = as_tokens(y), .h = as_tokens(x), .scale = 0.2f}, exec);
  }
  Index floats_per_pixel() const override {
    return 2 * (channels_ + (DrctConfig::kLayers - 1) * growth_) + layers_.back().floats_per_pixel();
  }
  const std::vector<SwinBlock<Exec>>& layers() const { return layers_; }
  const std::vector<Conv2d<Exec>>& adjust() const { return adjust_; }

 private:
  static void copy(View<const float, 4> from, View<float, 4> to, Exec& exec) {
    Backend<Exec>::copy(as_tokens(from).split(1, from.shape[3]), as_tokens(to).split(1, to.shape[3]), exec);
  }

  Index channels_, growth_;
  std::vector<SwinBlock<Exec>> layers_;
  std::vector<Conv2d<Exec>> adjust_;
};

template <class Exec>
std::unique_ptr<RestorationNet<Exec>> load_drct(const Value& config, const Parameters& parameters,
                                                Exec& exec) {
  const DrctConfig c = DrctConfig::from(config, parameters);
  RestorationInfo info = c.info();
  info.multiple = c.multiple;
  return make_restoration_net(c, info, parameters, exec, [&](Index group, const ParameterReader<Exec>& r) {
    return std::make_unique<DrctGroup<Exec>>(c, group, r);
  });
}

extern template class DrctGroup<CpuExec>;

}  // namespace v0
}  // namespace ashlar
