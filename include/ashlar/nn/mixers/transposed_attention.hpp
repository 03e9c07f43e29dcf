// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/conv2d.hpp"
#include "ashlar/ops/channel_attention.hpp"

namespace ashlar {
inline namespace v0 {

struct TransposedAttentionConfig {
  Index dim = 0, heads = 1;
  ChannelWeights weights = ChannelWeights::softmax;
  Index tile = 0;  // of the test-time local converter, both sides; 0: none
};

// Attention between channels: MDTA (Restormer: Zamir et al., 2022), and SparseGSA with relu weights
// (DLGSANet: Li et al., 2023):
//   q, k, v = depthwise(qkv(x)), 3 x 3;  out = project_out(channel_attention(q, k, v, temperature))
// Convolutions without biases take one where it is there.
template <class Exec>
class TransposedAttention {
 public:
  TransposedAttention(const ParameterReader<Exec>& r, const TransposedAttentionConfig& c)
      : c_(c),
        qkv_(r, "qkv", c.dim, 3 * c.dim, Conv2dOptions::same(1).unbiased()),
        spread_(r, "qkv_dwconv", 3 * c.dim, 3 * c.dim, Conv2dOptions::same(3).grouped(3 * c.dim).unbiased()),
        out_(r, "project_out", c.dim, c.dim, Conv2dOptions::same(1).unbiased()),
        temperature_(r.vector(to_floats(r.flat("temperature", c.heads)))) {}

  Index floats_per_pixel() const { return 6 * c_.dim; }
  // x, out, residual [N, H, W, C]; the residual is added, and `out` may be `x` or it.
  void operator()(View<const float, 4> x, View<float, 4> out, Exec& exec,
                  View<const float, 4> residual = {}) const {
    typename Exec::Scratch scratch(exec);
    const Index dim = c_.dim;
    const auto projected = scratch.floats(x.shape[0], x.shape[1], x.shape[2], 3 * dim),
               qkv = scratch.floats(x.shape[0], x.shape[1], x.shape[2], 3 * dim);
    qkv_(x, projected, exec);
    spread_(projected, qkv, exec);
    const View<float, 4> v = qkv.slice(3, 2 * dim, 3 * dim);
    channel_attention(ChannelAttention{.q = qkv.slice(3, 0, dim),
                                       .k = qkv.slice(3, dim, 2 * dim),
                                       .v = v,
                                       .out = v,
                                       .temperature = temperature_.view(),
                                       .heads = c_.heads,
                                       .weights = c_.weights,
                                       .tile = {c_.tile, c_.tile}},
                      exec);
    out_(v, out, exec, residual);
  }

 private:
  TransposedAttentionConfig c_;
  Conv2d<Exec> qkv_, spread_, out_;
  typename Backend<Exec>::Vector temperature_;
};

}  // namespace v0
}  // namespace ashlar
