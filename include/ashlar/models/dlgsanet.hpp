// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>

#include "ashlar/models/restoration_net.hpp"
#include "ashlar/nn/conv_feed_forward.hpp"
#include "ashlar/nn/mixers/dynamic_local_attention.hpp"
#include "ashlar/nn/mixers/transposed_attention.hpp"

namespace ashlar {
inline namespace v0 {

// DLGSANet (Li et al., 2023): light layers of dynamic local attention alternate with layers of sparse
// attention between channels. Tiny, Light and Large differ in their shapes.
struct DlgsanetConfig : RestorationConfig {
  struct FeedForward {
    Index hidden = 0;
    ConvFeedForwardKind kind = ConvFeedForwardKind::gated;
  };
  bool body_norm = false;
  std::vector<bool> local;  // the kind of each layer of a group: "buildblock_type", "blocks" times
  DynamicLocalAttentionConfig local_attention;
  TransposedAttentionConfig global_attention;
  FeedForward local_ffn, global_ffn;

  static DlgsanetConfig from(const Value& config, const Parameters& parameters);
  // Of the groups' and the last convolution's place in the sequence that the authors make of all of them.
  std::string part(Index i) const { return concat("deep_feature_extraction.", i); }
  std::string group(Index i) const { return part(i + (body_norm ? 1 : 0)); }
  std::string last() const { return part(groups + (body_norm ? 2 : 0)); }
};

// x += attention(norm(x));  x += FFN(norm(x))
template <class Exec>
class DlgsanetLayer {
 public:
  DlgsanetLayer(const ParameterReader<Exec>& r, const DlgsanetConfig& c, bool local)
      : norm1_(Norm<Exec>::layer(r, local ? "norm1.body" : "norm3.body", c.channels, c.norm_eps)),
        norm2_(Norm<Exec>::layer(r, local ? "norm2.body" : "norm4.body", c.channels, c.norm_eps)),
        ffn_(r.scope(local ? "IDynamic_ffn" : "restormer_ffn"), c.channels,
             (local ? c.local_ffn : c.global_ffn).hidden, (local ? c.local_ffn : c.global_ffn).kind) {
    if (local)
      local_.emplace(r.scope("IDynamicDWConv"), c.local_attention);
    else
      global_.emplace(r.scope("restormer_attn"), c.global_attention);
  }

  // x [N, H, W, C], packed, in place.
  void operator()(View<float, 4> x, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto n = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    norm1_(as_tokens(x), as_tokens(n), exec);
    attend(n, x, exec, x);
    norm2_(as_tokens(x), as_tokens(n), exec);
    ffn_(n, x, exec, x);
  }
  // out = attention(x) + residual, [N, H, W, C], packed; `out` may be `x` or `residual`.
  void attend(View<const float, 4> x, View<float, 4> out, Exec& exec,
              View<const float, 4> residual = {}) const {
    if (local_)
      (*local_)(x, out, exec, residual);
    else
      (*global_)(x, out, exec, residual);
  }
  Index floats_per_pixel(Index channels) const {
    const Index inside = local_ ? local_->floats_per_pixel() : global_->floats_per_pixel();
    return channels + std::max(inside, ffn_.floats_per_pixel());
  }
  const Norm<Exec>& norm1() const { return norm1_; }
  const DynamicLocalAttention<Exec>* local() const { return local_ ? &*local_ : nullptr; }

 private:
  Norm<Exec> norm1_, norm2_;
  std::optional<DynamicLocalAttention<Exec>> local_;
  std::optional<TransposedAttention<Exec>> global_;
  ConvFeedForward<Exec> ffn_;
};

// RHDTG, the residual hybrid dynamic transformer group: y = conv(layers(x)) + x
template <class Exec>
class DlgsanetGroup final : public RestorationGroup<Exec> {
 public:
  DlgsanetGroup(const DlgsanetConfig& c, const ParameterReader<Exec>& r) {
    const Index layers = static_cast<Index>(c.local.size());
    for (Index i = 0; i < layers; ++i)
      layers_.emplace_back(r.scope(concat("body.", i)), c, c.local[static_cast<std::size_t>(i)]);
    conv_ = Conv2d<Exec>(r, concat("body.", layers), c.channels, c.channels);
    floats_per_pixel_ = 0;
    for (const DlgsanetLayer<Exec>& layer : layers_)
      floats_per_pixel_ = std::max(floats_per_pixel_, c.channels + layer.floats_per_pixel(c.channels));
  }

  void forward(View<float, 4> x, Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const auto y = scratch.floats(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    Backend<Exec>::copy(as_tokens(x).split(1, x.shape[3]), as_tokens(y).split(1, x.shape[3]), exec);
    for (const DlgsanetLayer<Exec>& layer : layers_) layer(y, exec);
    conv_(y, x, exec, x);
  }
  Index floats_per_pixel() const override { return floats_per_pixel_; }
  const std::vector<DlgsanetLayer<Exec>>& layers() const { return layers_; }

 private:
  std::vector<DlgsanetLayer<Exec>> layers_;
  Conv2d<Exec> conv_;
  Index floats_per_pixel_;
};

// SwinIR's frame, with a first convolution that has no bias, and norms around the groups only with
// "body_norm".
template <class Exec>
std::unique_ptr<RestorationNet<Exec>> load_dlgsanet(const Value& config, const Parameters& parameters,
                                                    Exec& exec) {
  const DlgsanetConfig c = DlgsanetConfig::from(config, parameters);
  RestorationInfo info = c.info();
  info.global = true;
  const ParameterReader<Exec> r(parameters, exec);
  RestorationNames names;
  names.first = "overlap_embed.0.proj";
  typename RestorationNet<Exec>::Parts parts = restoration_ends(c, r, names, Conv2dOptions().unbiased());
  if (c.body_norm) {
    parts.embed_norm = Norm<Exec>::layer(r, c.part(0) + ".body", c.channels, c.norm_eps);
    parts.norm = Norm<Exec>::layer(r, c.part(c.groups + 1) + ".body", c.channels, c.norm_eps);
  }
  for (Index i = 0; i < c.groups; ++i)
    parts.groups.push_back(std::make_unique<DlgsanetGroup<Exec>>(c, r.scope(c.group(i))));
  parts.after_body = ResidualConv<Exec>(r, c.last(), c.channels, ResidualConvKind::one);
  r.expect_all_read(names.ignored);
  info.parameters = r.count().elements;
  return std::make_unique<RestorationNet<Exec>>(c, std::move(info), std::move(parts));
}

extern template class DlgsanetGroup<CpuExec>;

}  // namespace v0
}  // namespace ashlar
