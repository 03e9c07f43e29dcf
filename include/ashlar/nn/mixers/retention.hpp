// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/mixers/decayed_attention.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"
#include "ashlar/ops/rope.hpp"

namespace ashlar {
inline namespace v0 {

struct RetentionConfig : DecayedAttentionConfig {
  double rope_theta = 10000;
};

// Multi-scale retention (Sun et al., 2023): each head has a constant decay, ln(1 - 2^(-5 - h)), and q and k
// are rotated behind their feature map.
template <class Exec>
class Retention final : public DecayedAttention<Exec> {
 public:
  using Base = DecayedAttention<Exec>;

  Retention(const ParameterReader<Exec>& r, const RetentionConfig& c)
      : Base(r, c),
        decay_(Backend<Exec>::vector(retention_decay(c.heads), r.exec())),
        frequencies_(Backend<Exec>::vector(rope_frequencies(c.key_dim, c.rope_theta).inverse, r.exec())) {}

 private:
  void recur(View<const float, 2> x, const typename Base::Qkv& qkv, typename Base::Recurrence& args,
             const SequenceBatch<Exec>& batch, typename Exec::Scratch&, Exec& exec) const override {
    for (const auto& y : {qkv.q, qkv.k}) {
      const auto heads = y.split(1, this->config().key_dim);
      rope(Rope{heads, batch.positions, frequencies_.view(), heads}, exec);
    }
    args.g = constant_decay(decay_.view(), x.shape[0]);
    retention(args, exec);
  }

  typename Backend<Exec>::Vector decay_, frequencies_;
};

}  // namespace v0
}  // namespace ashlar
