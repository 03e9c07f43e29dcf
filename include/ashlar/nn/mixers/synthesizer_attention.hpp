// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>

#include "ashlar/nn/mixers/efficient_attention.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/scale_heads.hpp"

namespace ashlar {
inline namespace v0 {

struct SynthesizerAttentionConfig {
  enum Random : std::uint8_t { none, full, factorized };
  Index hidden = 0, heads = 0, head_dim = 0, max_length = 0;
  Random random = none;
  Index rank = 0;  // of the factorised one
  bool dense = false;
  bool dot_product = false;  // q k^T / sqrt(D) too
  bool causal = false;
  // As Long Range Arena released it, dense logits of a sequence [L, H, .] are read as if they were [H, L, .].
  bool released = false;
};

// Softmax attention whose logits do not come from queries and keys (Synthesizer; Tay et al., 2020), without
// a scale; a sequence of L tokens takes the first L rows and columns of what belongs to positions:
//   full        R_h                           tensor `random` [H, max_length, max_length]
//   factorised  R1_h R2_h                     `random1` [H, max_length, r], `random2` [H, r, max_length]
//   dense       relu(x W1_h^T + b1_h) W2^T + b2
//               `dense_syn.{weight,bias}` [H D, hidden], `dense_syn_len.{weight,bias}` [max_length, D]
// and the sum of those that are chosen, with q k^T / sqrt(D) as another. Logits of a product are computed as
// the attention's own product, of [q / sqrt(D), R1, relu(..), 1] with [k, R2^T, W2, b2]: no table of T^2 is
// held except R. Refused: nothing chosen, sequences of more than max_length tokens.
template <class Exec>
class SynthesizerAttention final : public EfficientAttention<Exec> {
 public:
  using Config = SynthesizerAttentionConfig;

  SynthesizerAttention(const ParameterReader<Exec>& r, const Config& c) : c_(c) {
    if (c.random == Config::none && !c.dense)
      refuse(kWho, "neither random nor dense logits are chosen, expected one of them or both");
    if (c.max_length < 1 || c.heads < 1 || (c.random == Config::factorized && c.rank < 1))
      refuse(kWho, "max_length is ", c.max_length, ", heads ", c.heads, " and rank ", c.rank,
             ", expected 1 or more");
    const Index length = c.max_length, rank = c.rank, dim = c.head_dim;
    if (c.random == Config::full)
      random_ = r.vector(to_floats(r.tensor("random", {c.heads, length, length})));
    if (c.random == Config::factorized) {
      random_ = r.vector(to_floats(r.tensor("random1", {c.heads, length, rank})));
      const Tensor<float, 1> right = to_floats(r.tensor("random2", {c.heads, rank, length}));
      Tensor<float, 1> transposed({right.size()});
      for (Index i = 0; i < right.size(); ++i)
        transposed.data()[(i / (rank * length) * length + i % length) * rank + i / length % rank] =
            right.data()[i];
      random_keys_ = r.vector(std::move(transposed));
    }
    if (c.dense) {
      hidden_ = Linear<Exec>(r, "dense_syn", c.hidden, c.heads * dim);
      dense_keys_ = r.vector(to_floats(r.tensor("dense_syn_len.weight", {length, dim})));
      if (r.contains("dense_syn_len.bias")) dense_bias_ = r.vector("dense_syn_len.bias", length);
    }
    if (c.dot_product && dim > 0) {
      Tensor<float, 1> scale({1});
      scale.data()[0] = 1 / std::sqrt(static_cast<float>(dim));
      scale_ = r.vector(std::move(scale));
    }
  }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    const Index tokens = heads.v.shape[0], dim = c_.head_dim;
    heads.check(kWho, c_.dot_product, c_.dot_product);
    if (heads.v.shape[1] != c_.heads) refuse(kWho, "v has ", heads.v.shape[1], " heads, expected ", c_.heads);
    if (c_.dot_product) expect_shape(kWho, "q", heads.q, {tokens, c_.heads, dim});
    if (c_.dense) expect_shape(kWho, "x", heads.x, {tokens, c_.hidden});
    for (Index n = 0; n < heads.offsets.count(); ++n)
      if (const Index length = heads.offsets.end(n, tokens) - heads.offsets.begin(n); length > c_.max_length)
        refuse(kWho, "sequence ", n, " has ", length, " tokens, expected at most ", c_.max_length);

    typename Exec::Scratch scratch(exec);
    View<float, 2> dense;
    if (c_.dense) {
      dense = scratch.floats(tokens, c_.heads * dim);
      hidden_(heads.x, dense, Phase::prefill, exec);
      activate(Activate{dense, {}, dense, Activation::relu}, exec);
    }
    for (Index n = 0; n < heads.offsets.count(); ++n) {
      const Index begin = heads.offsets.begin(n), end = heads.offsets.end(n, tokens);
      if (end > begin)
        attend_one(heads.sequence(n), dense ? dense.slice(0, begin, end) : View<float, 2>(), exec);
    }
  }

 private:
  static constexpr std::string_view kWho = "SynthesizerAttention";

  void attend_one(const HeadBatch& one, View<const float, 2> dense, Exec& exec) const {
    const Index tokens = one.v.shape[0], heads = c_.heads, dim = c_.head_dim, rank = c_.rank,
                length = c_.max_length;
    const bool factorized = c_.random == Config::factorized;
    const Index width =
        (c_.dot_product ? dim : 0) + (factorized ? rank : 0) + (c_.dense ? dim : 0) + (dense_bias_ ? 1 : 0);
    typename Exec::Scratch scratch(exec);
    const auto q = scratch.floats(tokens, heads, width), k = scratch.floats(tokens, heads, width);
    Index at = 0;
    auto columns = [&](const View<float, 3>& of, Index count) { return of.slice(2, at, at + count); };
    if (c_.dot_product) {
      const View<const float, 3> scale(scale_.view().data, {tokens, heads, 1}, {0, 0, 1});
      scale_heads(ScaleHeads{one.q, scale, columns(q, dim)}, exec);
      Backend<Exec>::copy(one.k, columns(k, dim), exec);
      at += dim;
    }
    if (factorized) {
      const std::array<Index, 3> shape{tokens, heads, rank}, strides{rank, length * rank, 1};
      Backend<Exec>::copy({random_.view().data, shape, strides}, columns(q, rank), exec);
      Backend<Exec>::copy({random_keys_.view().data, shape, strides}, columns(k, rank), exec);
      at += rank;
    }
    if (c_.dense) {
      const std::array<Index, 3> strides = c_.released ? std::array<Index, 3>{dim, tokens * dim, 1}
                                                       : std::array<Index, 3>{heads * dim, dim, 1};
      Backend<Exec>::copy({dense.data, {tokens, heads, dim}, strides}, columns(q, dim), exec);
      Backend<Exec>::copy({dense_keys_.view().data, {tokens, heads, dim}, {dim, 0, 1}}, columns(k, dim),
                          exec);
      at += dim;
    }
    if (dense_bias_) {
      Backend<Exec>::fill(columns(q, 1), 1, exec);
      Backend<Exec>::copy({dense_bias_.view().data, {tokens, heads, 1}, {1, 0, 1}}, columns(k, 1), exec);
    }
    const KeyValue keys{k, one.v};
    SoftmaxAttention args{q, {}, {&keys, 1}, one.out, {.causal = c_.causal}};
    args.score.scale = 1;
    if (c_.random == Config::full)
      args.score.bias = {random_.view().data, {1, heads, tokens, tokens}, {0, length * length, length, 1}};
    softmax_attention(args, exec);
  }

  Config c_;
  Linear<Exec> hidden_;
  typename Backend<Exec>::Vector random_, random_keys_, dense_keys_, dense_bias_, scale_;
};

}  // namespace v0
}  // namespace ashlar
