// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/mixers/efficient_attention.hpp"

namespace ashlar {
inline namespace v0 {

struct LocalAttentionConfig {
  enum Form : std::uint8_t {
    contiguous,
    // As Long Range Arena released it: a sequence of L tokens is padded by zeros to the multiple L' of the
    // block above L (by a whole block where L is one already), and token i attends to all that are
    // congruent to it modulo L' / block, padding included: keys of score 0 and value 0.
    released
  };
  Index block = 0;
  bool causal = false;
  Form form = contiguous;
};

// Softmax attention inside of blocks of contiguous tokens (the local baseline of Long Range Arena; Tay et
// al., 2021): i sees j with i / block = j / block; O(T block). Refused: causal in the released form.
template <class Exec>
class LocalAttention final : public EfficientAttention<Exec> {
 public:
  explicit LocalAttention(const LocalAttentionConfig& c) : c_(c) {
    if (c.block < 1) refuse("LocalAttention", "blocks have ", c.block, " tokens, expected 1 or more");
    if (c.causal && c.form == LocalAttentionConfig::released)
      refuse("LocalAttention", "causal and the released form are given, expected one of them");
  }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    heads.check("LocalAttention");
    if (c_.form == LocalAttentionConfig::contiguous)
      return attend(heads, AttentionPattern{.causal = c_.causal, .chunk = c_.block}, exec);
    for (Index n = 0; n < heads.offsets.count(); ++n) attend_released(heads.sequence(n), exec);
  }

 private:
  void attend_released(const HeadBatch& one, Exec& exec) const {
    const Index tokens = one.v.shape[0], groups = tokens / c_.block + 1;
    typename Exec::Scratch scratch(exec);
    auto padded = [&](View<const float, 3> rows) {
      const auto more = scratch.floats(groups * c_.block, rows.shape[1], rows.shape[2]);
      Backend<Exec>::copy(rows, more.slice(0, 0, tokens), exec);
      Backend<Exec>::fill(more.slice(0, tokens, more.shape[0]), 0, exec);
      return more;
    };
    HeadBatch all;
    all.q = padded(one.q), all.k = padded(one.k), all.v = padded(one.v);
    all.out = scratch.floats(groups * c_.block, one.v.shape[1], one.v.shape[2]);
    attend(all, AttentionPattern{.dilation = groups}, exec);
    Backend<Exec>::copy(all.out.slice(0, 0, tokens), one.out, exec);
  }

  LocalAttentionConfig c_;
};

}  // namespace v0
}  // namespace ashlar
