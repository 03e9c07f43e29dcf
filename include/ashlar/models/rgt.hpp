// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>

#include "ashlar/models/restoration_net.hpp"
#include "ashlar/nn/mixers/recursive_attention.hpp"
#include "ashlar/nn/mixers/window_attention.hpp"
#include "ashlar/ops/scale_channels.hpp"

namespace ashlar {
inline namespace v0 {

// RGT, the recursive generalization transformer (Chen et al., 2024): layers of attention in rectangular
// windows (L-SA) alternate with layers of attention to a small map of the image (RG-SA).
struct RgtConfig : RestorationConfig {
  std::vector<Index> depths, heads;  // of each group
  Index hidden = 0;                  // of the gated MLP, both halves: "mlp_ratio"
  Index reduced = 0;                 // channels of RG-SA's queries and keys
  double ratio = 0.5;                // "c_ratio"
  std::array<Index, 2> split{0, 0};  // "split_size"
  bool biased = true;                // "qkv_bias"

  static RgtConfig from(const Value& config, const Parameters& parameters);
  static bool local(Index layer) { return layer % 2 == 0; }
  // Layers 2, 6, ... of groups 0, 2, ... and layers 0, 4, ... of groups 1, 3, ...
  static bool shifted(Index group, Index layer) { return group % 2 == 0 ? layer % 4 == 2 : layer % 4 == 0; }
  // L-SA: half of the channels in windows split[0] x split[1], half in windows turned by 90 degrees, of an
  // image with zeros up to a multiple of the longer side; and a convolution of the values.
  static WindowAttentionConfig windows(Index channels, Index heads, std::array<Index, 2> split, bool shifted,
                                       bool biased) {
    WindowAttentionConfig a{.dim = channels, .biased = biased, .value_conv = true};
    for (const bool turned : {false, true}) {
      const std::array<Index, 2> window{split[turned ? 1 : 0], split[turned ? 0 : 1]};
      WindowBranch b{.heads = heads / 2, .window = window, .bias = PositionBias::dynamic_mlp};
      if (shifted) b.shift = {window[0] / 2, window[1] / 2};
      b.pad_to[0] = b.pad_to[1] = std::max(split[0], split[1]);
      b.scope = turned ? "attns.1" : "attns.0";
      a.branches.push_back(b);
    }
    return a;
  }
  RecursiveAttentionConfig recursive(Index group) const {
    return {.dim = channels,
            .heads = heads[static_cast<std::size_t>(group)],
            .reduced = reduced,
            .ratio = ratio,
            .biased = biased};
  }
};

// The gated MLP: (u1, u2) = gelu(fc1(x)) in halves, out = fc2(u1 * dwconv(norm(u2))).
template <class Exec>
class SpatialGateMlp {
 public:
  SpatialGateMlp(const ParameterReader<Exec>& r, Index dim, Index hidden, float eps)
      : up_(r, "fc1", dim, hidden, true, Activation::gelu),
        down_(r, "fc2", hidden / 2, dim, true),
        norm_(Norm<Exec>::layer(r, "sg.norm", hidden / 2, eps)),
        conv_(r, "sg.conv", hidden / 2, hidden / 2, Conv2dOptions::same(3).grouped(hidden / 2)),
        hidden_(hidden) {}

  Index floats_per_pixel() const { return hidden_ + hidden_ / 2; }
  // x, out, residual [N, H, W, C]; the residual is added, and `out` may be `x` or it.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec,
                  View<const float, 4> residual = {}) const {
    typename Exec::Scratch scratch(exec);
    const Index half = hidden_ / 2;
    const auto u = scratch.floats(x.shape[0], x.shape[1], x.shape[2], hidden_);
    const auto gate = scratch.floats(x.shape[0], x.shape[1], x.shape[2], half);
    const View<float, 2> rows = as_tokens(u), first = rows.slice(1, 0, half),
                         second = rows.slice(1, half, hidden_);
    up_(x, u, exec);
    norm_(second, second, exec);
    conv_(u.slice(3, half, hidden_), gate, exec);
    activate(Activate{as_tokens(gate), first, as_tokens(gate), Activation::identity}, exec);
    down_(gate, out, exec, residual);
  }

 private:
  PixelLinear<Exec> up_, down_;
  Norm<Exec> norm_;
  Conv2d<Exec> conv_;
  Index hidden_;
};

// A layer, with the hybrid adaptive integration of what it was given:
//   y = x + attention(norm1(x));  y += MLP(norm2(y));  out = y + gamma * x, gamma of each channel
template <class Exec>
class RgtBlock {
 public:
  RgtBlock(const ParameterReader<Exec>& r, const RgtConfig& c, Index group, Index layer)
      : norm1_(Norm<Exec>::layer(r, "norm1", c.channels, c.norm_eps)),
        norm2_(Norm<Exec>::layer(r, "norm2", c.channels, c.norm_eps)),
        mlp_(r.scope("mlp"), c.channels, c.hidden, c.norm_eps),
        gamma_(r.vector("gamma", c.channels)),
        channels_(c.channels) {
    if (RgtConfig::local(layer))
      local_.emplace(r.scope("attn"),
                     RgtConfig::windows(c.channels, c.heads[static_cast<std::size_t>(group)], c.split,
                                        RgtConfig::shifted(group, layer), c.biased));
    else
      recursive_.emplace(r.scope("attn"), c.recursive(group));
    r.skip("attn.attn_mask_0"), r.skip("attn.attn_mask_1");
  }

  // x [N, H, W, C], packed, in place.
  void operator()(View<float, 4> x, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto given = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    const auto n = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    Backend<Exec>::copy(as_tokens(x).split(1, channels_), as_tokens(given).split(1, channels_), exec);
    norm1_(as_tokens(x), as_tokens(n), exec);
    attend(n, x, exec, x);
    norm2_(as_tokens(x), as_tokens(n), exec);
    mlp_(n, x, exec, x);
    const View<const float, 2> gamma(gamma_.view().data, {x.shape[0], channels_}, {0, 1});
    scale_channels(ScaleChannels{given, gamma, x, 1, x}, exec);
  }
  // out = attention(x) + residual, [N, H, W, C], packed; `out` may be `x` or `residual`.
  void attend(View<const float, 4> x, View<float, 4> out, Exec& exec,
              View<const float, 4> residual = {}) const {
    if (local_)
      (*local_)(x, out, exec, 1, residual);
    else
      (*recursive_)(x, out, exec, residual);
  }
  Index floats_per_pixel() const {
    const Index inside = local_ ? 3 * channels_ : recursive_->floats_per_pixel();
    return 2 * channels_ + std::max(inside, mlp_.floats_per_pixel());
  }
  const Norm<Exec>& norm1() const { return norm1_; }

 private:
  Norm<Exec> norm1_, norm2_;
  std::optional<WindowSelfAttention<Exec>> local_;
  std::optional<RecursiveAttention<Exec>> recursive_;
  SpatialGateMlp<Exec> mlp_;
  typename Backend<Exec>::Vector gamma_;
  Index channels_;
};

// y = conv(blocks(x)) + x
template <class Exec>
class RgtGroup final : public RestorationGroup<Exec> {
 public:
  RgtGroup(const RgtConfig& c, Index group, const ParameterReader<Exec>& r)
      : conv_(r, "conv", c.channels, c.connection), channels_(c.channels) {
    for (Index i = 0; i < c.depths[static_cast<std::size_t>(group)]; ++i)
      blocks_.emplace_back(r.scope(concat("blocks.", i)), c, group, i);
  }

  void forward(View<float, 4> x, Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const auto y = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    Backend<Exec>::copy(as_tokens(x).split(1, x.shape[3]), as_tokens(y).split(1, x.shape[3]), exec);
    for (const RgtBlock<Exec>& block : blocks_) block(y, exec);
    conv_(y, x, x, exec);
  }
  Index floats_per_pixel() const override {
    Index inside = conv_.floats_per_pixel();
    for (const RgtBlock<Exec>& block : blocks_) inside = std::max(inside, block.floats_per_pixel());
    return channels_ + inside;
  }
  const std::vector<RgtBlock<Exec>>& blocks() const { return blocks_; }

 private:
  std::vector<RgtBlock<Exec>> blocks_;
  ResidualConv<Exec> conv_;
  Index channels_;
};

template <class Exec>
std::unique_ptr<RestorationNet<Exec>> load_rgt(const Value& config, const Parameters& parameters,
                                               Exec& exec) {
  const RgtConfig c = RgtConfig::from(config, parameters);
  RestorationInfo info = c.info();
  info.smallest = RecursiveAttention<Exec>::kSmallest, info.global = true;
  RestorationNames names;
  names.embed_norm = "before_RG.1";
  return make_restoration_net(
      c, info, parameters, exec,
      [&](Index group, const ParameterReader<Exec>& r) {
        return std::make_unique<RgtGroup<Exec>>(c, group, r);
      },
      names);
}

extern template class RgtGroup<CpuExec>;

}  // namespace v0
}  // namespace ashlar
