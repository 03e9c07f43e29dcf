// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/feature_attention.hpp"
#include "ashlar/ops/activation.hpp"

namespace ashlar {
inline namespace v0 {

struct LinearTransformerConfig {
  bool causal = false;
  float eps = 1e-6f;  // added to the divisor
};

// The Linear Transformer (Katharopoulos et al., 2020), with f(x) = elu(x) + 1 and no scale:
//   o_t = sum_s (f(q_t) f(k_s)) v_s / (sum_s f(q_t) f(k_s) + eps)
// over the whole sequence, or over s <= t; O(T D Dv).
template <class Exec>
class LinearTransformerAttention final : public EfficientAttention<Exec> {
 public:
  explicit LinearTransformerAttention(const LinearTransformerConfig& c = {}) : c_(c) {}

  void operator()(const HeadBatch& heads, Exec& exec) const override { (*this)(heads, {}, exec); }
  // Only the first key_lengths[n] keys of sequence n count, for all of its queries: padded batches.
  void operator()(const HeadBatch& heads, std::span<const Index> key_lengths, Exec& exec) const {
    heads.check("LinearTransformerAttention");
    typename Exec::Scratch scratch(exec);
    auto features = [&](View<const float, 3> x) -> View<const float, 3> {
      const auto mapped = scratch.floats(x.shape[0], x.shape[1], x.shape[2]);
      for (Index h = 0; h < x.shape[1]; ++h)
        activate(Activate{head(x, h), {}, head(mapped, h), Activation::elu1}, exec);
      return mapped;
    };
    const auto q = features(heads.q), k = features(heads.k);
    attend_features(q, k, heads, {.causal = c_.causal, .normalizer_eps = c_.eps}, key_lengths, exec);
  }

 private:
  template <class T>
  static View<T, 2> head(const View<T, 3>& x, Index h) {
    return {x.at(0, h), {x.shape[0], x.shape[2]}, {x.strides[0], x.strides[2]}};
  }

  LinearTransformerConfig c_;
};

}  // namespace v0
}  // namespace ashlar
