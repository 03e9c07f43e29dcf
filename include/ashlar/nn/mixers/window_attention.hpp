// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ashlar/nn/pixel_linear.hpp"
#include "ashlar/nn/value_conv.hpp"
#include "ashlar/nn/window_bias.hpp"
#include "ashlar/ops/window_attention.hpp"

namespace ashlar {
inline namespace v0 {

// Some heads of window attention: which groups their tokens form, and where their bias comes from.
struct WindowBranch {
  using Size = GroupMap::Size;
  Index heads = 0;
  Size window{0, 0};  // rows, columns; {0, 0}: the whole image is one group
  Size shift{0, 0};   // of the windows
  Size pad_to{0, 0};  // a ragged image counts as reaching to a multiple of this; {0, 0}: of the window
  Index overlap = 0;  // keys are those of windows of this size around the queries'; 0: the queries' own
  Index grid = 0;     // instead of windows: every grid-th row and column
  PositionBias bias = PositionBias::none;
  Size pretrained{0, 0};  // SwinV2's pretrained_window_size, for log_mlp
  std::string scope;      // of the branch's parameters; empty: the module's own

  // Windows with a learned table: Swin, SwinIR, HAT, DRCT.
  static WindowBranch windows(Index heads, Index window, Index shift) {
    return {.heads = heads, .window = {window, window}, .shift = {shift, shift}, .bias = PositionBias::table};
  }
  // The same with the MLP of SwinV2 and Swin2SR.
  static WindowBranch windows_v2(Index heads, Index window, Index shift, Index pretrained = 0) {
    WindowBranch b = windows(heads, window, shift);
    b.bias = PositionBias::log_mlp, b.pretrained = {pretrained, pretrained};
    return b;
  }

  bool whole() const { return window[0] == 0 && grid == 0; }
  GroupMap map(Size image, Index views) const {
    if (grid != 0) return GroupMap::grid(image, grid, views);
    return whole() ? GroupMap::global(image, views) : GroupMap::window(image, window, shift, pad_to);
  }
  GroupMap key_map(Size image) const {
    return overlap != 0 ? GroupMap::overlapping(image, window[0], overlap) : GroupMap();
  }
};

struct WindowAttentionConfig {
  Index dim = 0;
  std::vector<WindowBranch> branches;  // of consecutive channels
  bool biased = true;                  // projections have biases
  bool cosine = false;                 // scores of SwinV2, with a learned temperature
  bool value_conv = false;             // get_v or IFS, added to the attention's output
  float shift_mask = -100;             // -200 as Hugging Face adds it
};

// Self-attention in the groups of an image:
//   q, k, v = W_qkv x;  out = W_proj (attention(q, k, v) [+ conv(v)])
// Reads qkv.weight [3 C, C] with qkv.bias, or with q_bias and v_bias (SwinV2); else query, key, value (to_q,
// to_k, to_v). For each branch the parameters of its position bias, and logit_scale [heads, 1, 1] with cosine
// scores. Refused: heads that do not divide the channels, branches with heads of different sizes.
template <class Exec>
class WindowSelfAttention {
 public:
  WindowSelfAttention(const ParameterReader<Exec>& r, const WindowAttentionConfig& c)
      : dim_(c.dim), shift_mask_(c.shift_mask), proj_(r, {"proj", "output.dense"}, c.dim, c.dim, c.biased) {
    for (const WindowBranch& b : c.branches) heads_ += b.heads;
    if (heads_ < 1 || dim_ % heads_ != 0)
      refuse("WindowSelfAttention", heads_, " heads do not divide ", dim_, " channels");
    read_projections(r, c.biased);
    for (const WindowBranch& b : c.branches) branches_.push_back(read(r, b, c.cosine));
    if (c.value_conv) value_conv_ = ValueConv<Exec>(r, {"get_v", "IFS"}, dim_, heads_);
  }

  // x, out [N, H, W, C]; `out` may be `x`. With groups over several views, N is a multiple of `views`. A
  // residual is added to the result; `out` may be it.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec, Index views = 1,
                  View<const float, 4> residual = {}) const {
    const auto [images, height, width, channels] = x.shape;
    if (channels != dim_) refuse("WindowSelfAttention", "x has ", channels, " channels, expected ", dim_);
    typename Exec::Scratch scratch(exec);
    const auto projected = scratch.floats(images, height, width, 3 * dim_);
    if (qkv_) {
      qkv_(x, projected, exec);
    } else {
      q_(x, projected.slice(3, 0, dim_), exec);
      k_(x, projected.slice(3, dim_, 2 * dim_), exec);
      v_(x, projected.slice(3, 2 * dim_, 3 * dim_), exec);
    }
    const auto q = projected.slice(3, 0, dim_), k = projected.slice(3, dim_, 2 * dim_),
               v = projected.slice(3, 2 * dim_, 3 * dim_);
    Index first = 0;
    for (const Branch& b : branches_) {
      const Index end = first + b.groups.heads * (dim_ / heads_);
      attend(b, q.slice(3, first, end), k.slice(3, first, end), v.slice(3, first, end), views, exec);
      first = end;
    }
    if (value_conv_) value_conv_(v, q, exec);
    proj_(q, out, exec, residual);
  }

 private:
  using Vector = typename Backend<Exec>::Vector;
  struct Branch {
    WindowBranch groups;
    Vector bias, tau;  // [heads, keys, queries], [heads]
  };

  void read_projections(const ParameterReader<Exec>& r, bool biased) {
    if (r.contains("qkv.weight") && r.contains("q_bias")) {
      const Tensor<float, 1> q = to_floats(r.tensor("q_bias", {dim_})),
                             v = to_floats(r.tensor("v_bias", {dim_}));
      Tensor<float, 1> bias({3 * dim_});
      std::copy_n(q.data(), dim_, bias.data());
      std::copy_n(v.data(), dim_, bias.data() + 2 * dim_);
      qkv_ = PixelLinear<Exec>(r, r.tensor("qkv.weight", {3 * dim_, dim_}), dim_, 3 * dim_,
                               r.vector(std::move(bias)));
    } else if (r.contains("qkv.weight")) {
      qkv_ = PixelLinear<Exec>(r, "qkv", dim_, 3 * dim_, biased);
    } else {
      q_ = PixelLinear<Exec>(r, {"to_q", "query", "self.query", "q"}, dim_, dim_, biased);
      k_ = PixelLinear<Exec>(r, {"to_k", "key", "self.key", "k"}, dim_, dim_);  // SwinV2's has no bias
      v_ = PixelLinear<Exec>(r, {"to_v", "value", "self.value", "v"}, dim_, dim_, biased);
    }
  }

  Branch read(const ParameterReader<Exec>& module, const WindowBranch& b, bool cosine) const {
    const ParameterReader<Exec> r = b.scope.empty() ? module : module.scope(b.scope);
    Branch branch{b};
    if (cosine) {
      Tensor<float, 1> tau = to_floats(r.flat({"logit_scale", "self.logit_scale"}, b.heads));
      for (Index h = 0; h < b.heads; ++h) tau.data()[h] = std::exp(std::min(tau.data()[h], std::log(100.0f)));
      branch.tau = r.vector(std::move(tau));
    }
    for (const char* buffer : {"relative_position_index", "relative_coords_table", "rpe_biases"})
      r.skip({buffer, concat("self.", buffer).c_str()});
    if (b.bias == PositionBias::none) return branch;
    if (b.whole() || b.grid != 0) refuse("WindowSelfAttention", "a position bias without windows");
    if (b.overlap != 0 && (b.bias != PositionBias::table || b.window[0] != b.window[1]))
      refuse("WindowSelfAttention", "overlapping windows, expected them square and with a learned table");
    const Index side = b.window[0] + b.overlap - 1;
    const Index rows = b.overlap != 0 ? side * side : (2 * b.window[0] - 1) * (2 * b.window[1] - 1);
    const Tensor<float, 2> table = b.bias == PositionBias::table ? learned_position_table(r, rows, b.heads)
                                   : b.bias == PositionBias::log_mlp
                                       ? log_position_table(r, b.window, b.pretrained, b.heads)
                                       : dynamic_position_table(r, b.window, b.heads);
    const Tensor<std::int32_t, 2> index =
        b.overlap != 0 ? overlapping_position_index(b.window[0], b.overlap) : window_position_index(b.window);
    const Tensor<float, 3> bias = gather_window_bias(table.view(), index.view());
    Tensor<float, 1> flat({bias.size()});
    std::copy_n(bias.data(), bias.size(), flat.data());
    branch.bias = r.vector(std::move(flat));
    return branch;
  }

  // The result in place of q.
  void attend(const Branch& b, View<float, 4> q, View<const float, 4> k, View<const float, 4> v, Index views,
              Exec& exec) const {
    const GroupMap::Size image{q.shape[1], q.shape[2]};
    WindowAttention a{.q = q, .k = k, .v = v, .out = q, .heads = b.groups.heads};
    a.map = b.groups.map(image, views), a.key_map = b.groups.key_map(image);
    a.tau = b.tau.view(), a.shift_mask = shift_mask_;
    const Index keys = a.key_map ? a.key_map.slots() : a.map.slots();
    if (b.bias) a.bias = queries_first({b.bias.view().data, {a.heads, keys, a.map.slots()}});
    window_attention(a, exec);
  }

  Index dim_ = 0, heads_ = 0;
  float shift_mask_ = -100;
  PixelLinear<Exec> qkv_, q_, k_, v_, proj_;
  std::vector<Branch> branches_;
  ValueConv<Exec> value_conv_;
};

}  // namespace v0
}  // namespace ashlar
