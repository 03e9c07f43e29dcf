// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/mixers/efficient_attention.hpp"
#include "ashlar/ops/length_projection.hpp"

namespace ashlar {
inline namespace v0 {

struct LinformerAttentionConfig {
  Index max_length = 0, rank = 0;
  // The projections' tensors [max_length, rank], or [heads, max_length, rank] with `heads`. The same name
  // twice: one projection for keys and values (Long Range Arena's). Layers share one by reading the same.
  std::string key = "proj_k", value = "proj_v";
  Index heads = 0;  // above 0: each head has projections of its own
};

// Attention to r mixtures of a sequence's keys and values (Linformer; Wang et al., 2020), O(T r):
//   k' = E^T k, v' = F^T v over the sequence,  out = softmax(q k'^T / sqrt(D)) v'
// A sequence of L tokens takes the first L rows of E and F. There is no causal form. Refused: sequences of
// more than max_length tokens.
template <class Exec>
class LinformerAttention final : public EfficientAttention<Exec> {
 public:
  LinformerAttention(const ParameterReader<Exec>& r, const LinformerAttentionConfig& c) : c_(c) {
    if (c.max_length < 1 || c.rank < 1 || c.heads < 0)
      refuse("LinformerAttention", "max_length is ", c.max_length, " and rank ", c.rank,
             ", expected 1 or more");
    key_ = read(r, c.key);
    if (c.value != c.key) value_ = read(r, c.value);
  }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    heads.check("LinformerAttention");
    const Index sequences = heads.offsets.count(), count = heads.v.shape[1];
    typename Exec::Scratch scratch(exec);
    const auto k = scratch.floats(sequences * c_.rank, count, heads.k.shape[2]),
               v = scratch.floats(sequences * c_.rank, count, heads.v.shape[2]);
    length_projection(LengthProjection{heads.k, weight(key_), heads.offsets, k}, exec);
    length_projection(LengthProjection{heads.v, weight(value_ ? value_ : key_), heads.offsets, v}, exec);
    typename Backend<Exec>::HostScratch host(exec);
    const auto mixtures = host.template get<KeyValue>(sequences);
    for (Index n = 0; n < sequences; ++n)
      mixtures(n) =
          KeyValue{k.slice(0, n * c_.rank, (n + 1) * c_.rank), v.slice(0, n * c_.rank, (n + 1) * c_.rank)};
    softmax_attention(
        SoftmaxAttention{
            heads.q, heads.offsets, {mixtures.data, static_cast<std::size_t>(sequences)}, heads.out},
        exec);
  }

 private:
  using Vector = typename Backend<Exec>::Vector;

  Vector read(const ParameterReader<Exec>& r, const std::string& name) const {
    return r.vector(to_floats(c_.heads > 0 ? r.tensor(name, {c_.heads, c_.max_length, c_.rank})
                                           : r.tensor(name, {c_.max_length, c_.rank})));
  }
  View<const float, 3> weight(const Vector& v) const {
    return {v.view().data, {std::max<Index>(1, c_.heads), c_.max_length, c_.rank}};
  }

  LinformerAttentionConfig c_;
  Vector key_, value_;
};

}  // namespace v0
}  // namespace ashlar
