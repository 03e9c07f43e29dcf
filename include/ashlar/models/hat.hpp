// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/swinir.hpp"
#include "ashlar/nn/pixel_mlp.hpp"
#include "ashlar/nn/squeeze_excite.hpp"
#include "ashlar/ops/residual_add.hpp"

namespace ashlar {
inline namespace v0 {

// HAT (Chen et al., 2023): SwinIR with a convolution branch beside each window attention, and a layer of
// attention with overlapping windows at the end of each group. HAT-S, HAT, HAT-L differ in their shapes.
struct HatConfig : SwinirConfig {
  Index overlap = 0;                   // the side of the keys' windows
  Index compressed = 0, squeezed = 0;  // channels inside CAB and inside its channel attention
  float conv_scale = 0.01f;

  static HatConfig from(const Value& config, const Parameters& parameters);
  WindowAttentionConfig windows(Index group, Index shift) const {
    return {.dim = channels, .branches = {WindowBranch::windows(heads[std::size_t(group)], window, shift)}};
  }
  WindowAttentionConfig overlapping(Index group) const {
    WindowAttentionConfig a = windows(group, 0);
    a.branches.front().overlap = overlap;
    return a;
  }
};

// CAB: u = conv(gelu(conv(n))), of which channel attention makes u gate(mean(u)), the mean over the image.
template <class Exec>
class ConvAttentionBranch {
 public:
  ConvAttentionBranch(const ParameterReader<Exec>& r, const HatConfig& c)
      : compress_(r, "cab.0", c.channels, c.compressed, Conv2dOptions().with(Activation::gelu)),
        expand_(r, "cab.2", c.compressed, c.channels),
        channels_(r, "cab.3.attention.1", "cab.3.attention.3", c.channels, c.squeezed),
        compressed_(c.compressed) {}

  // x += scale CAB(n)
  void operator()(View<const float, 4> n, View<float, 4> x, float scale, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto inner = scratch.floats(n.shape[0], n.shape[1], n.shape[2], compressed_),
               u = scratch.floats(n.shape[0], n.shape[1], n.shape[2], n.shape[3]);
    compress_(n, inner, exec);
    expand_(inner, u, exec);
    channels_(u, x, exec, scale, x);
  }

 private:
  Conv2d<Exec> compress_, expand_;
  SqueezeExcite<Exec> channels_;
  Index compressed_;
};

// HAB, the hybrid attention block, with two branches that see the same n:
//   n = norm1(x);  x += attention(n) + conv_scale CAB(n);  x += MLP(norm2(x))
template <class Exec>
class HybridAttentionBlock {
 public:
  HybridAttentionBlock(const ParameterReader<Exec>& r, const HatConfig& c, Index group, Index index)
      : norm1_(Norm<Exec>::layer(r, "norm1", c.channels, c.norm_eps)),
        norm2_(Norm<Exec>::layer(r, "norm2", c.channels, c.norm_eps)),
        attention_(r.scope("attn"), c.windows(group, c.shifted && index % 2 == 1 ? c.window / 2 : 0)),
        cab_(r.scope("conv_block"), c),
        mlp_(r, "mlp.fc1", "mlp.fc2", c.channels, c.hidden, Activation::gelu, true),
        conv_scale_(c.conv_scale) {}

  // x [N, H, W, C], packed, in place.
  void operator()(View<float, 4> x, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto n = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    norm1_(as_tokens(x), as_tokens(n), exec);
    cab_(n, x, conv_scale_, exec);
    attention_(n, x, exec, 1, x);
    norm2_(as_tokens(x), as_tokens(n), exec);
    mlp_(n, x, exec, x);
  }
  const Norm<Exec>& norm1() const { return norm1_; }
  const WindowSelfAttention<Exec>& attention() const { return attention_; }
  const ConvAttentionBranch<Exec>& cab() const { return cab_; }

 private:
  Norm<Exec> norm1_, norm2_;
  WindowSelfAttention<Exec> attention_;
  ConvAttentionBranch<Exec> cab_;
  PixelMlp<Exec> mlp_;
  float conv_scale_;
};

// OCAB: attention of windows to larger windows around them, whose keys and values are zero outside the image:
//   x += attention(norm1(x));  x += MLP(norm2(x))
template <class Exec>
class OverlappingAttentionBlock {
 public:
  OverlappingAttentionBlock(const ParameterReader<Exec>& r, const HatConfig& c, Index group)
      : norm1_(Norm<Exec>::layer(r, "norm1", c.channels, c.norm_eps)),
        norm2_(Norm<Exec>::layer(r, "norm2", c.channels, c.norm_eps)),
        attention_(r, c.overlapping(group)),
        mlp_(r, "mlp.fc1", "mlp.fc2", c.channels, c.hidden, Activation::gelu, true) {}

  void operator()(View<float, 4> x, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto n = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    norm1_(as_tokens(x), as_tokens(n), exec);
    attention_(n, x, exec, 1, x);
    norm2_(as_tokens(x), as_tokens(n), exec);
    mlp_(n, x, exec, x);
  }

 private:
  Norm<Exec> norm1_, norm2_;
  WindowSelfAttention<Exec> attention_;
  PixelMlp<Exec> mlp_;
};

// RHAG, the residual hybrid attention group: y = conv(OCAB(HABs(x))) + x
template <class Exec>
class HatGroup final : public RestorationGroup<Exec> {
 public:
  HatGroup(const HatConfig& c, Index group, const ParameterReader<Exec>& r)
      : overlapping_(r.scope("residual_group.overlap_attn"), c, group),
        conv_(r, "conv", c.channels, c.connection),
        floats_per_pixel_(2 * c.channels + std::max(3 * c.channels, c.hidden)) {
    for (Index i = 0; i < c.depths[std::size_t(group)]; ++i)
      blocks_.emplace_back(r.scope(concat("residual_group.blocks.", i)), c, group, i);
  }

  void forward(View<float, 4> x, Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const auto y = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    Backend<Exec>::copy(as_tokens(x).split(1, x.shape[3]), as_tokens(y).split(1, x.shape[3]), exec);
    for (const HybridAttentionBlock<Exec>& block : blocks_) block(y, exec);
    overlapping_(y, exec);
    if (conv_)
      conv_(y, x, x, exec);
    else
      residual_add(ResidualAdd{as_tokens(y), as_tokens(x)}, exec);
  }
  Index floats_per_pixel() const override { return floats_per_pixel_ + conv_.floats_per_pixel(); }
  const std::vector<HybridAttentionBlock<Exec>>& blocks() const { return blocks_; }
  const OverlappingAttentionBlock<Exec>& overlapping() const { return overlapping_; }

 private:
  std::vector<HybridAttentionBlock<Exec>> blocks_;
  OverlappingAttentionBlock<Exec> overlapping_;
  ResidualConv<Exec> conv_;
  Index floats_per_pixel_;
};

// What the buffers of position indices say is worked out here.
inline bool hat_ignores(std::string_view name) { return name.starts_with("relative_position_index_"); }

template <class Exec>
std::unique_ptr<RestorationNet<Exec>> load_hat(const Value& config, const Parameters& parameters,
                                               Exec& exec) {
  const HatConfig c = HatConfig::from(config, parameters);
  RestorationInfo info = c.info();
  info.multiple = c.multiple, info.global = true;  // CAB's means
  RestorationNames names;
  names.ignored = hat_ignores;
  return make_restoration_net(
      c, info, parameters, exec,
      [&](Index group, const ParameterReader<Exec>& r) {
        return std::make_unique<HatGroup<Exec>>(c, group, r);
      },
      names);
}

extern template class HatGroup<CpuExec>;

}  // namespace v0
}  // namespace ashlar
