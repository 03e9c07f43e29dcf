// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/mixers/efficient_attention.hpp"
#include "ashlar/ops/residual_add.hpp"
#include "ashlar/ops/sinkhorn.hpp"

namespace ashlar {
inline namespace v0 {

struct SinkhornAttentionConfig {
  enum Form : std::uint8_t {
    paper,
    // As Long Range Arena released it: block b of a sequence of n blocks holds its tokens congruent to b
    // modulo n; sorted blocks are made with separate sums (mix_blocks); outputs of two softmaxes are added.
    released_softmax,  // P = softmax of the logits: rows sum to one, so every sorted block is the sum of all
    released_sinkhorn  // P by one iteration at temperature 1, R clipped to [-1, 1], heads and blocks taken
                       // for one axis of rows that is cut into matrices of n rows
  };
  Index head_dim = 0, block = 0;
  Form form = paper;
  Index iterations = 8;   // of the paper's form
  float temperature = 1;  // likewise
};

// Sparse Sinkhorn attention (Tay et al., 2020), without Gumbel noise, which is training's. With s_b the sum
// of the keys of block b, and n blocks in a sequence:
//   R_b = W s_b + bias, its first n elements;  P = sinkhorn(R [n, n])
//   sorted keys and values of block b: sum_l P_bl k_l, sum_l P_bl v_l, token by token
//   o = softmax(q [own keys, sorted keys]^T D^-1/2) [own values, sorted values]
// O(T block + T n) scores and sums a head. W is given as [D, most blocks], for all heads. Refused: lengths
// that are not whole blocks, or more blocks than W has columns; there is no causal form.
template <class Exec>
class SinkhornAttention final : public EfficientAttention<Exec> {
 public:
  SinkhornAttention(const SinkhornAttentionConfig& c, View<const float, 2> weight, View<const float, 1> bias,
                    Exec& exec)
      : c_(c), most_(weight.shape[1]) {
    if (c.head_dim < 1 || c.block < 1)
      refuse(kName, "head_dim is ", c.head_dim, " and block ", c.block, ", expected 1 or more");
    expect_shape(kName, "weight", weight, {c.head_dim, most_});
    if (bias) expect_shape(kName, "bias", bias, {most_});
    if (most_ < 1) refuse(kName, "weight has shape ", to_string(weight.shape), ", expected a column a block");
    auto rows = std::make_shared<Tensor<float, 2>>(std::array<Index, 2>{most_, c.head_dim});
    for (Index i = 0; i < most_; ++i)
      for (Index j = 0; j < c.head_dim; ++j) rows->view()(i, j) = weight(j, i);
    weight_ = Backend<Exec>::matrix({rows->data(), DType::f32, {most_, c.head_dim}, rows}, most_, c.head_dim,
                                    true, exec);
    if (!bias) return;
    Tensor<float, 1> values({most_});
    std::copy_n(bias.data, most_, values.data());
    bias_ = Backend<Exec>::vector(std::move(values), exec);
  }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    heads.check(kName);
    const Index tokens = heads.v.shape[0], count = heads.v.shape[1];
    if (heads.q.shape[2] != c_.head_dim)
      refuse(kName, "q has shape ", to_string(heads.q.shape), ", expected heads of ", c_.head_dim,
             " channels");
    for (Index n = 0; n < heads.offsets.count(); ++n)
      if (const Index length = heads.offsets.end(n, tokens) - heads.offsets.begin(n);
          length % c_.block != 0 || length / c_.block > most_)
        refuse(kName, "sequence ", n, " has ", length, " tokens, expected a multiple of ", c_.block,
               ", at most ", most_ * c_.block);
    if (tokens == 0) return;
    if (c_.form == SinkhornAttentionConfig::paper) return attend_blocks(heads, exec);

    typename Exec::Scratch scratch(exec);
    HeadBatch strided{.offsets = heads.offsets};
    strided.q = into_blocks(heads.q, heads.offsets, scratch, exec);
    strided.k = into_blocks(heads.k, heads.offsets, scratch, exec);
    strided.v = into_blocks(heads.v, heads.offsets, scratch, exec);
    strided.out = scratch.floats(tokens, count, heads.v.shape[2]);
    attend_blocks(strided, exec);
    each_head(heads.offsets, heads.out, [&](Index begin, Index blocks, Index h) {
      copy_head(View<const float, 3>(strided.out), begin, h, blocks, {1, c_.block}, heads.out, {blocks, 1},
                exec);
    });
  }

 private:
  static constexpr std::string_view kName = "SinkhornAttention";

  // f(first token, blocks, head) for each sequence that has tokens.
  template <class F>
  void each_head(const Offsets& offsets, const View<float, 3>& like, F&& f) const {
    for (Index n = 0; n < offsets.count(); ++n) {
      const Index begin = offsets.begin(n), blocks = (offsets.end(n, like.shape[0]) - begin) / c_.block;
      for (Index h = 0; blocks != 0 && h < like.shape[1]; ++h) f(begin, blocks, h);
    }
  }
  // How far apart in memory, in tokens, are neighbours in a block, and blocks.
  struct Steps {
    Index inside, between;
  };
  void copy_head(View<const float, 3> from, Index begin, Index h, Index blocks, Steps from_steps,
                 View<float, 3> to, Steps to_steps, Exec& exec) const {
    const std::array<Index, 3> shape{blocks, c_.block, from.shape[2]};
    auto blocked = [&]<class T>(const View<T, 3>& x, Steps steps) -> View<T, 3> {
      return {x.at(begin, h), shape, {steps.between * x.strides[0], steps.inside * x.strides[0], 1}};
    };
    Backend<Exec>::copy(blocked(from, from_steps), blocked(to, to_steps), exec);
  }
  // Strided blocks made contiguous.
  View<float, 3> into_blocks(View<const float, 3> x, const Offsets& offsets, typename Exec::Scratch& scratch,
                             Exec& exec) const {
    const auto out = scratch.floats(x.shape[0], x.shape[1], x.shape[2]);
    each_head(offsets, out, [&](Index begin, Index blocks, Index h) {
      copy_head(x, begin, h, blocks, {blocks, 1}, out, {1, c_.block}, exec);
    });
    return out;
  }

  // Contiguous blocks.
  void attend_blocks(const HeadBatch& heads, Exec& exec) const {
    const Index tokens = heads.v.shape[0], count = heads.v.shape[1], dv = heads.v.shape[2];
    const Index blocks = tokens / c_.block;
    const bool paper = c_.form == SinkhornAttentionConfig::paper;
    typename Exec::Scratch scratch(exec);
    const auto sums = scratch.floats(blocks, count, c_.head_dim),
               k = scratch.floats(tokens, count, c_.head_dim), v = scratch.floats(tokens, count, dv),
               from_sorted = scratch.floats(tokens, count, dv);
    const auto logits = scratch.floats(blocks * count, most_);
    if (c_.form != SinkhornAttentionConfig::released_softmax) {
      sum_blocks(SumBlocks{heads.k, sums, c_.block}, exec);
      dense(
          typename Backend<Exec>::Dense{
              {sums.data, {blocks * count, c_.head_dim}}, weight_, bias_.view(), logits},
          exec);
    }
    for (Index n = 0; n < heads.offsets.count(); ++n) {
      const Index begin = heads.offsets.begin(n), end = heads.offsets.end(n, tokens),
                  mine = (end - begin) / c_.block;
      if (mine == 0) continue;
      MixBlocks mix{heads.k.slice(0, begin, end),
                    sort(logits.at(begin / c_.block * count), mine, count, exec), k.slice(0, begin, end),
                    c_.block, !paper};
      mix_blocks(mix, exec);
      mix.x = heads.v.slice(0, begin, end), mix.out = v.slice(0, begin, end);
      mix_blocks(mix, exec);
    }
    const auto own_lse = paper ? scratch.floats(tokens, count) : View<float, 2>(),
               sorted_lse = paper ? scratch.floats(tokens, count) : View<float, 2>();
    attend_each(heads, heads.k, heads.v, heads.out, own_lse, exec);
    attend_each(heads, k, v, from_sorted, sorted_lse, exec);
    if (paper)
      merge_attention(MergeAttention{heads.out, own_lse, from_sorted, sorted_lse, heads.out}, exec);
    else
      residual_add(
          ResidualAdd{{from_sorted.data, {tokens, count * dv}}, {heads.out.data, {tokens, count * dv}}},
          exec);
  }

  // P [H, n, n] in the place of the logits [n, H, most blocks] of a sequence.
  View<const float, 3> sort(float* logits, Index n, Index count, Exec& exec) const {
    if (c_.form == SinkhornAttentionConfig::released_softmax) return {};
    const View<float, 3> by_head(logits, {count, n, n}, {most_, count * most_, 1});
    if (c_.form == SinkhornAttentionConfig::paper) {
      sinkhorn(Sinkhorn{by_head, by_head, c_.iterations, c_.temperature}, exec);
    } else {
      const View<float, 3> cut(logits, {count, n, n}, {n * most_, most_, 1});
      sinkhorn(Sinkhorn{cut, cut, 1, 1, 1}, exec);
    }
    return by_head;
  }

  // Each block of queries to the block of keys in the same place.
  void attend_each(const HeadBatch& heads, View<const float, 3> k, View<const float, 3> v, View<float, 3> out,
                   View<float, 2> lse, Exec& exec) const {
    const Index blocks = heads.v.shape[0] / c_.block;
    typename Backend<Exec>::HostScratch lists(exec);
    const auto starts = lists.template get<Index>(blocks + 1);
    const auto sequences = lists.template get<KeyValue>(blocks);
    starts(0) = 0;
    for (Index b = 0; b < blocks; ++b) {
      const Index begin = b * c_.block, end = begin + c_.block;
      sequences(b) = {k.slice(0, begin, end), v.slice(0, begin, end)};
      starts(b + 1) = end;
    }
    SoftmaxAttention args{heads.q, {}, {}, out};
    args.offsets = std::span<const Index>(starts.data, static_cast<std::size_t>(blocks + 1));
    args.sequences = {sequences.data, static_cast<std::size_t>(blocks)};
    args.lse = lse;
    softmax_attention(args, exec);
  }

  SinkhornAttentionConfig c_;
  Index most_;
  typename Backend<Exec>::Matrix weight_;
  typename Backend<Exec>::Vector bias_;
};

}  // namespace v0
}  // namespace ashlar
