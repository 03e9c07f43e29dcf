// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/mixers/window_attention.hpp"
#include "ashlar/nn/mlp.hpp"
#include "ashlar/nn/tokens.hpp"
#include "ashlar/residual/standard.hpp"

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
        mlp_(r, {"mlp.fc1", "intermediate.dense"}, {"mlp.fc2", "output.dense"}, dim_, c.hidden, c.activation,
             true) {
    r.skip("attn_mask");
  }

  // Scratch memory, for each pixel.
  Index floats_per_pixel() const { return 2 * dim_ + std::max(3 * dim_, hidden_); }

  // x [N, H, W, C], pixels with equal steps, in place.
  void operator()(View<float, 4> x, Exec& exec) const {
    const auto attend = [&](View<const float, 2> in, View<float, 2> out) {
      attention_({in.data, x.shape, steps(x, in.strides[0])}, {out.data, x.shape, steps(x, out.strides[0])},
                 exec);
    };
    const auto mlp = [&](View<const float, 2> in, View<float, 2> out) {
      mlp_(in, out, Phase::prefill, exec);
    };
    const View<float, 2> h = as_tokens(x);
    if (post_norm_) {
      ashlar::post_norm(h, norm1_, exec, attend);
      ashlar::post_norm(h, norm2_, exec, mlp);
    } else {
      pre_norm(h, norm1_, exec, attend);
      pre_norm(h, norm2_, exec, mlp);
    }
  }

 private:
  static std::array<Index, 4> steps(const View<float, 4>& x, Index pixel) {
    return {x.shape[1] * x.shape[2] * pixel, x.shape[2] * pixel, pixel, 1};
  }

  Index dim_, hidden_;
  bool post_norm_;
  Norm<Exec> norm1_, norm2_;
  WindowSelfAttention<Exec> attention_;
  Mlp<Exec> mlp_;
};

}  // namespace v0
}  // namespace ashlar
