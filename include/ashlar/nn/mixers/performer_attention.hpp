// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <optional>

#include "ashlar/nn/feature_attention.hpp"
#include "ashlar/ops/favor.hpp"

namespace ashlar {
inline namespace v0 {

struct PerformerConfig {
  enum Kernel : std::uint8_t {
    softmax,  // positive features of the softmax kernel
    relu      // max(W x D^-1/4, 0) + eps; without a projection max(x, 0) + eps, as Long Range Arena released
  };
  Index head_dim = 0;
  Kernel kernel = softmax;
  bool causal = false;
  std::optional<float> eps;  // of the features: 1e-4 (softmax; 1e-6 in Long Range Arena), 1e-3 (relu)
  float normalizer_eps = 0;  // added to the divisor
  float guard = 0;           // see BidirectionalLinearAttention: 1e-6 as released by Google; not with causal
  // What is subtracted from the exponents of keys. That of the whole sequence, as released, lets eps count
  // for more where a later key is large; `none` makes causal attention depend on nothing later.
  FavorStabilizer key_stabilizer = FavorStabilizer::sequence;
};

// The Performer's attention, FAVOR+ (Choromanski et al., 2021): random features f in place of the
// exponential,
//   o_t = sum_s (f(q_t) f(k_s)) v_s / sum_s f(q_t) f(k_s)
// over the whole sequence, or over s <= t; O(T M (D + Dv)). The projection W [M, D] is the caller's: of a
// checkpoint (`projection_matrix`), or drawn by favor_projection. Refused: softmax features without a
// projection, a projection of another head_dim, a guard when causal.
template <class Exec>
class PerformerAttention final : public EfficientAttention<Exec> {
 public:
  PerformerAttention(const PerformerConfig& c, View<const float, 2> projection, Exec& exec) : c_(c) {
    constexpr std::string_view kName = "PerformerAttention";
    if (c.head_dim < 1) refuse(kName, "head_dim is ", c.head_dim, ", expected 1 or more");
    if (c.causal && c.guard != 0) refuse(kName, "guard is ", c.guard, ", expected 0 when causal");
    if (!projection && c.kernel == PerformerConfig::softmax)
      refuse(kName, "there is no projection, expected one for softmax features");
    features_ = c.head_dim;
    if (!projection) return;
    features_ = projection.shape[0];
    expect_shape(kName, "projection", projection, {features_, c.head_dim});
    if (features_ == 0) refuse(kName, "the projection has no rows, expected one a feature");
    auto kept = std::make_shared<Tensor<float, 2>>(std::array<Index, 2>{features_, c.head_dim});
    for (Index i = 0; i < features_; ++i) std::copy_n(projection.at(i), c.head_dim, kept->view().at(i));
    projection_ = Backend<Exec>::matrix({kept->data(), DType::f32, {features_, c.head_dim}, kept}, features_,
                                        c.head_dim, true, exec);
  }

  Index features() const { return features_; }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    heads.check("PerformerAttention");
    if (heads.q.shape[2] != c_.head_dim)
      refuse("PerformerAttention", "q has shape ", to_string(heads.q.shape), ", expected heads of ",
             c_.head_dim, " channels");
    const Index tokens = heads.q.shape[0], count = heads.q.shape[1];
    typename Exec::Scratch scratch(exec);
    const auto q = scratch.floats(tokens, count, features_), k = scratch.floats(tokens, count, features_);
    map(heads.q, q, FavorStabilizer::row, heads.offsets, exec);
    map(heads.k, k, c_.key_stabilizer, heads.offsets, exec);
    attend_features<Exec>(
        q, k, heads, {.causal = c_.causal, .normalizer_eps = c_.normalizer_eps, .guard = c_.guard}, {}, exec);
  }

  // The features [T, H, M] of x [T, H, D].
  void map(View<const float, 3> x, View<float, 3> out, FavorStabilizer stabilizer, const Offsets& offsets,
           Exec& exec) const {
    const bool softmax = c_.kernel == PerformerConfig::softmax;
    FavorFeatures args{x, x, out, offsets};
    args.kind = softmax ? FavorFeatures::softmax : FavorFeatures::relu;
    args.stabilizer = stabilizer, args.eps = c_.eps.value_or(softmax ? 1e-4f : 1e-3f);
    if (projection_) {
      for (Index h = 0; h < x.shape[1]; ++h)
        dense(typename Backend<Exec>::Dense{head(x, h), projection_, {}, head(out, h)}, exec);
      args.projected = out;
      args.scale = static_cast<float>(1 / std::sqrt(std::sqrt(static_cast<double>(c_.head_dim))));
    }
    favor_features(args, exec);
  }

 private:
  template <class T>
  static View<T, 2> head(const View<T, 3>& x, Index h) {
    return {x.at(0, h), {x.shape[0], x.shape[2]}, {x.strides[0], x.strides[2]}};
  }

  PerformerConfig c_;
  Index features_ = 0;
  typename Backend<Exec>::Matrix projection_;
};

}  // namespace v0
}  // namespace ashlar
