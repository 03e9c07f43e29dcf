// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/mixers/window_attention.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/nn/tokens.hpp"
#include "ashlar/ops/residual_add.hpp"

namespace ashlar {
inline namespace v0 {

struct SwinBlockConfig {
  WindowAttentionConfig attention;
  Index hidden = 0;        // of the MLP
  bool post_norm = false;  // SwinV2
  float norm_eps = 1e-5f;
  Activation activation = Activation::gelu;

  // Of `heads` heads in square windows, with the bias table of Swin or the cosine scores of SwinV2.
  static SwinBlockConfig v1(Index dim, Index heads, Index window, Index shift, Index hidden) {
    return {.attention = {.dim = dim, .branches = {WindowBranch::windows(heads, window, shift)}},
            .hidden = hidden};
  }
  static SwinBlockConfig v2(Index dim, Index heads, Index window, Index shift, Index hidden,
                            Index pretrained = 0) {
    return {.attention = {.dim = dim,
                          .branches = {WindowBranch::windows_v2(heads, window, shift, pretrained)},
                          .cosine = true},
            .hidden = hidden,
            .post_norm = true};
  }
};

// A layer of Swin (Liu et al., 2021), and of SwinV2 (Liu et al., 2022):
//   x += Attention(norm1(x));  x += MLP(norm2(x))      with post_norm  x += norm1(Attention(x));  x += norm2(
//   MLP(x))
// Reads norm1, attn, norm2, mlp.fc1 and mlp.fc2, or what Hugging Face calls them.
template <class Exec>
class SwinBlock {
 public:
  SwinBlock(const ParameterReader<Exec>& r, const SwinBlockConfig& c)
      : dim_(c.attention.dim),
        hidden_(c.hidden),
        post_norm_(c.post_norm),
        norm1_(Norm<Exec>::layer(r, {"norm1", "layernorm_before"}, dim_, c.norm_eps)),
        norm2_(Norm<Exec>::layer(r, {"norm2", "layernorm_after"}, dim_, c.norm_eps)),
        attention_(r.scope(r.contains("attn.proj.weight") ? "attn" : "attention"), c.attention),
        up_(r, {"mlp.fc1", "intermediate.dense"}, dim_, c.hidden, true, c.activation),
        down_(r, {"mlp.fc2", "output.dense"}, c.hidden, dim_, true) {
    r.skip("attn_mask");
  }

  // Scratch memory, for each pixel.
  Index floats_per_pixel() const { return dim_ + std::max(3 * dim_, hidden_); }

  // x [N, H, W, C], pixels with equal steps, in place.
  void operator()(View<float, 4> x, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const View<float, 4> y = scratch.floats(x.shape[0], x.shape[1], x.shape[2], dim_);
    const View<float, 2> h = as_tokens(x), rows = as_tokens(y);
    if (post_norm_) {
      attention_(x, y, exec);
      norm1_(rows, rows, exec);
      residual_add(ResidualAdd{rows, h}, exec);
      mlp(x, y, {}, exec);
      norm2_(rows, rows, exec);
      residual_add(ResidualAdd{rows, h}, exec);
    } else {
      norm1_(h, rows, exec);
      attention_(y, x, exec, 1, x);
      norm2_(h, rows, exec);
      mlp(y, x, x, exec);
    }
  }

 private:
  // out = MLP(x) + residual
  void mlp(View<const float, 4> x, View<float, 4> out, View<const float, 4> residual, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    const auto inner = scratch.floats(x.shape[0], x.shape[1], x.shape[2], hidden_);
    up_(x, inner, exec);
    down_(inner, out, exec, residual);
  }

  Index dim_, hidden_;
  bool post_norm_;
  Norm<Exec> norm1_, norm2_;
  WindowSelfAttention<Exec> attention_;
  PixelLinear<Exec> up_, down_;
};

}  // namespace v0
}  // namespace ashlar
