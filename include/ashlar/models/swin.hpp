// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "ashlar/core/value.hpp"
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/swin_block.hpp"
#include "ashlar/ops/pool2d.hpp"

namespace ashlar {
inline namespace v0 {

// Swin (Liu et al., 2021) and SwinV2 (Liu et al., 2022) as networks for classification.
struct SwinConfig {
  bool v2 = false;
  Index image = 224, patch = 4, in_channels = 3, classes = 0;  // classes 0: the features are the result
  Index channels = 0;                                          // of the first stage; doubled by each next one
  std::vector<Index> depths, heads, hidden, pretrained;        // of each stage
  Index window = 7;
  bool qkv_bias = true;

  static SwinConfig from(const Value& config, const Parameters& parameters);
  Index stages() const { return static_cast<Index>(depths.size()); }
  Index resolution(Index stage) const { return image / patch >> stage; }
  // Windows are no larger than the image is in a stage; those that hold all of it are not shifted.
  SwinBlockConfig block(Index stage, Index index) const {
    const auto s = static_cast<std::size_t>(stage);
    const Index side = std::min(window, resolution(stage)), dim = channels << stage;
    const Index shift = index % 2 == 1 && resolution(stage) > window ? window / 2 : 0;
    SwinBlockConfig b = v2 ? SwinBlockConfig::v2(dim, heads[s], side, shift, hidden[s], pretrained[s])
                           : SwinBlockConfig::v1(dim, heads[s], side, shift, hidden[s]);
    b.attention.biased = qkv_bias;
    return b;
  }
};

// Four neighbours as one pixel of 4 C channels, in the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column),
// then out = W norm(x), or with norm_last norm(W x) (SwinV2), of 2 C channels.
template <class Exec>
class PatchMerging {
 public:
  PatchMerging() = default;
  PatchMerging(const ParameterReader<Exec>& r, Index channels, bool norm_last)
      : norm_last_(norm_last),
        reduction_(r, "reduction", 4 * channels, 2 * channels),
        norm_(Norm<Exec>::layer(r, "norm", norm_last ? 2 * channels : 4 * channels, 1e-5f)) {}

  explicit operator bool() const { return static_cast<bool>(reduction_); }
  // x [N, H, W, C] with even sides, out [N, H / 2, W / 2, 2 C], both packed.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec) const {
    const Index images = x.shape[0], rows = x.shape[1] / 2, columns = x.shape[2] / 2, channels = x.shape[3];
    typename Exec::Scratch scratch(exec);
    const auto merged = scratch.floats(images, rows, columns, 4 * channels);
    for (Index n = 0; n < images; ++n)
      for (Index k = 0; k < 4; ++k) {
        const View<const float, 3> from(x.at(n, k % 2, k / 2), {rows, columns, channels},
                                        {2 * x.strides[1], 2 * x.strides[2], 1});
        Backend<Exec>::copy(from, merged[n].slice(2, k * channels, (k + 1) * channels), exec);
      }
    const View<float, 2> in = as_tokens(merged), result = as_tokens(out);
    if (!norm_last_) norm_(in, in, exec);
    reduction_(in, result, Phase::prefill, exec);
    if (norm_last_) norm_(result, result, exec);
  }

 private:
  bool norm_last_ = false;
  Linear<Exec> reduction_;
  Norm<Exec> norm_;
};

// t = norm(conv(image)), p x p patches;  t = merge(blocks(t)), stage by stage;  logits = head(mean(norm(t)))
template <class Exec>
class SwinTransformer {
 public:
  struct Stage {
    std::vector<SwinBlock<Exec>> blocks;
    PatchMerging<Exec> merge;  // none in the last one
  };

  SwinTransformer(const SwinConfig& c, const ParameterReader<Exec>& r)
      : c_(c),
        patches_(r, "patch_embed.proj", c.in_channels, c.channels, Conv2dOptions::patches(c.patch)),
        patch_norm_(Norm<Exec>::layer(r, "patch_embed.norm", c.channels, 1e-5f)) {
    for (Index s = 0; s < c.stages(); ++s) {
      const ParameterReader<Exec> scope = r.scope(concat("layers.", s));
      Stage stage;
      for (Index i = 0; i < c.depths[static_cast<std::size_t>(s)]; ++i)
        stage.blocks.emplace_back(scope.scope(concat("blocks.", i)), c.block(s, i));
      if (s + 1 < c.stages())
        stage.merge = PatchMerging<Exec>(scope.scope("downsample"), c.channels << s, c.v2);
      stages_.push_back(std::move(stage));
    }
    norm_ = Norm<Exec>::layer(r, "norm", features(), 1e-5f);
    if (c.classes != 0) head_ = Linear<Exec>(r, "head", features(), c.classes, true);
  }

  const SwinConfig& config() const { return c_; }
  Index features() const { return c_.channels << (c_.stages() - 1); }
  // Of the result: of classes, or of features where there is no head.
  Index outputs() const { return c_.classes != 0 ? c_.classes : features(); }
  const std::vector<Stage>& stages() const { return stages_; }

  // image [N, S, S, in_channels], normalised as in training, of the S that the network was made for; t [N, S
  // / p, S / p, C].
  void embed(View<const float, 4> image, View<float, 4> t, Exec& exec) const {
    expect_shape("Swin", "image", image, {image.shape[0], c_.image, c_.image, c_.in_channels});
    patches_(image, t, exec);
    patch_norm_(as_tokens(t), as_tokens(t), exec);
  }
  // logits [N, outputs()]
  void operator()(View<const float, 4> image, View<float, 2> logits, Exec& exec) const {
    const Index images = image.shape[0];
    expect_shape("Swin", "logits", logits, {images, outputs()});
    typename Exec::Scratch scratch(exec);
    View<float, 4> t = map(scratch, images, 0);
    embed(image, t, exec);
    for (Index s = 0; s < c_.stages(); ++s) {
      const Stage& stage = stages_[static_cast<std::size_t>(s)];
      for (const SwinBlock<Exec>& block : stage.blocks) block(t, exec);
      if (!stage.merge) continue;
      const View<float, 4> next = map(scratch, images, s + 1);
      stage.merge(t, next, exec);
      t = next;
    }
    norm_(as_tokens(t), as_tokens(t), exec);
    const View<float, 4> mean = scratch.floats(images, 1, 1, features());
    adaptive_pool2d(AdaptivePool2d{t, mean}, exec);
    if (head_)
      head_(as_tokens(mean), logits, Phase::prefill, exec);
    else
      Backend<Exec>::copy(as_tokens(mean).split(1, features()), logits.split(1, features()), exec);
  }

 private:
  View<float, 4> map(typename Exec::Scratch& scratch, Index images, Index stage) const {
    const Index side = c_.resolution(stage);
    return scratch.floats(images, side, side, c_.channels << stage);
  }

  SwinConfig c_;
  Conv2d<Exec> patches_;
  Norm<Exec> patch_norm_, norm_;
  std::vector<Stage> stages_;
  Linear<Exec> head_;
};

extern template class PatchMerging<CpuExec>;
extern template class SwinTransformer<CpuExec>;

// A checkpoint with the authors' names; `config` as theirs, for what the shapes do not tell. Error(
// "UnusedTensor") for tensors that no part asked for.
template <class Exec>
std::unique_ptr<SwinTransformer<Exec>> load_swin(const Value& config, const Parameters& parameters,
                                                 Exec& exec) {
  const ParameterReader<Exec> r(parameters, exec);
  auto model = std::make_unique<SwinTransformer<Exec>>(SwinConfig::from(config, parameters), r);
  r.expect_all_read([](std::string_view) { return false; });
  return model;
}

}  // namespace v0
}  // namespace ashlar
