// SPDX-License-Identifier: Apache-2.0
// Linear Transformer and Performer.
#include "ashlar/nn/feature_attention.hpp"

#include "ashlar/nn/mixers/linear_transformer_attention.hpp"
#include "ashlar/nn/mixers/performer_attention.hpp"
#include "ashlar/ref/favor.hpp"
#include "tests/nn/efficient_attention_support.hpp"

namespace ashlar {
namespace {

using namespace test;

double elu1(float x) { return x > 0 ? x + 1.0 : std::exp(static_cast<double>(x)); }

double elu_product(Heads& a, Index n, Index h, Index i, Index j) {
  const Index begin = a.starts[static_cast<std::size_t>(n)];
  double sum = 0;
  for (Index c = 0; c < a.dim; ++c)
    sum += elu1(a.q.view()(begin + i, h, c)) * elu1(a.k.view()(begin + j, h, c));
  return sum;
}

TEST(LinearTransformer, MatchesTheEquation) {
  Heads a(3, 6);
  CpuExec exec;
  for (bool causal : {false, true}) {
    const LinearTransformerAttention<CpuExec> attention({causal, 0});
    expect_attended(a, a.run(attention, exec), attended(a, [&](Index n, Index h, Index i, Index j) {
                      return causal && j > i ? kUnseen : std::log(elu_product(a, n, h, i, j));
                    }));
    expect_alone_as_packed(a, attention);
  }
}

TEST(LinearTransformer, AddsEpsToTheDivisor) {
  Heads a(2, 4);
  CpuExec exec;
  a.v.each([](float& e) { e = 1; });  // o = sum / (sum + eps)
  for (bool causal : {false, true}) {
    const auto out = a.run(LinearTransformerAttention<CpuExec>({causal, 2.0f}), exec);
    for (Index i = 0; i < 17; ++i) {
      double sum = 0;
      for (Index j = 0; j < (causal ? i + 1 : 17); ++j) sum += elu_product(a, 2, 1, i, j);
      EXPECT_NEAR(out(23 + i, 1, 2), sum / (sum + 2), 40 * kEps);
    }
  }
}

TEST(LinearTransformer, KeyLengthsHideTheRest) {
  Heads a(2, 4);
  CpuExec exec;
  const std::vector<Index> lengths{9, 0, 17};
  LinearTransformerAttention<CpuExec>({false, 0})(a.batch(), lengths, exec);
  expect_attended(a, a.out.cview(), attended(a, [&](Index n, Index h, Index i, Index j) {
                    return j < lengths[static_cast<std::size_t>(n)] ? std::log(elu_product(a, n, h, i, j))
                                                                    : kUnseen;
                  }));
  EXPECT_EQ(refusal([&] {
              LinearTransformerAttention<CpuExec>({true, 0})(a.batch(), lengths, exec);
            }),
            "attend_features: key lengths were given, expected none when causal");
}

TEST(LinearTransformer, TheLastTokenSeesAllCausallyOrNot) {
  Heads a(2, 5);
  CpuExec exec;
  const auto both = a.run(LinearTransformerAttention<CpuExec>(), exec);
  std::vector<float> last;
  for (Index t : {22, 39}) last.insert(last.end(), both.at(t, 1), both.at(t, 1) + 5);
  const auto causal = a.run(LinearTransformerAttention<CpuExec>({.causal = true}), exec);
  for (std::size_t i = 0; i < last.size(); ++i)
    EXPECT_NEAR(causal(i < 5 ? 22 : 39, 1, static_cast<Index>(i) % 5), last[i], 100 * kEps);
}

// Features of x in double.
std::vector<double> features(Heads& a, Array<3>& x, const Tensor<float, 2>& w,
                             FavorFeaturesArgs<double> args) {
  const Index m = w.shape()[0];
  std::vector<double> projected(static_cast<std::size_t>(40 * a.heads * m)), out(projected.size());
  for (Index t = 0; t < 40; ++t)
    for (Index h = 0; h < a.heads; ++h)
      for (Index i = 0; i < m; ++i)
        for (Index c = 0; c < a.dim; ++c)
          projected[static_cast<std::size_t>((t * a.heads + h) * m + i)] +=
              static_cast<double>(w.view()(i, c)) * x.view()(t, h, c);
  args.x = x.exact(), args.offsets = a.starts;
  args.projected = {projected.data(), {40, a.heads, m}}, args.out = {out.data(), {40, a.heads, m}};
  ref::favor_features<double>(args);
  return out;
}

TEST(Performer, MatchesTheEquation) {
  Heads a(2, 5);
  CpuExec exec;
  const Index m = 11;
  const auto w = favor_projection(m, a.dim, 3);
  for (bool causal : {false, true})
    for (auto kernel : {PerformerConfig::softmax, PerformerConfig::relu})
      for (auto stabilizer : {FavorStabilizer::sequence, FavorStabilizer::none}) {
        PerformerConfig c{.head_dim = a.dim, .kernel = kernel, .causal = causal, .eps = 1e-2f};
        c.key_stabilizer = stabilizer;
        const PerformerAttention<CpuExec> attention(c, w.view(), exec);
        FavorFeaturesArgs<double> f{.scale = std::pow(5.0, -0.25), .eps = 0.01};
        if (kernel == PerformerConfig::relu) f.kind = FavorFeaturesArgs<double>::relu;
        const auto q = features(a, a.q, w, f);
        f.stabilizer = stabilizer;
        const auto k = features(a, a.k, w, f);
        expect_attended(a, a.run(attention, exec), attended(a, [&](Index n, Index h, Index i, Index j) {
                          const Index begin = a.starts[static_cast<std::size_t>(n)];
                          double sum = 0;
                          for (Index e = 0; e < m; ++e)
                            sum += q[static_cast<std::size_t>(((begin + i) * a.heads + h) * m + e)] *
                                   k[static_cast<std::size_t>(((begin + j) * a.heads + h) * m + e)];
                          return causal && j > i ? kUnseen : std::log(sum);
                        }));
        expect_alone_as_packed(a, attention);
      }
}

TEST(Performer, TheReleasedReluNeedsNoProjection) {
  Heads a(2, 5);
  CpuExec exec;
  const PerformerAttention<CpuExec> attention({.head_dim = 5, .kernel = PerformerConfig::relu}, {}, exec);
  EXPECT_EQ(attention.features(), 5);
  expect_attended(a, a.run(attention, exec), attended(a, [&](Index n, Index h, Index i, Index j) {
                    const Index begin = a.starts[static_cast<std::size_t>(n)];
                    double sum = 0;
                    for (Index c = 0; c < a.dim; ++c)
                      sum += (std::max(a.q.view()(begin + i, h, c), 0.0f) + 1e-3) *
                             (std::max(a.k.view()(begin + j, h, c), 0.0f) + 1e-3);
                    return std::log(sum);
                  }));
}

TEST(Performer, ManyFeaturesTendToSoftmax) {
  Heads a(2, 8);
  // Logits of about 0.25: the variance of features grows with e^(|q|^2 + |k|^2).
  for (auto* x : {&a.q, &a.k}) x->each([](float& e) { e *= 0.5f; });
  CpuExec exec;
  const auto want = attended_where(a, [](Index, Index, Index, Index) { return true; });
  auto error = [&](Index m) {
    const auto w = favor_projection(m, a.dim, 5);
    const auto out =
        a.run(PerformerAttention<CpuExec>({.head_dim = a.dim, .eps = 0.0f}, w.view(), exec), exec);
    double sum = 0;
    for (Index t = 0; t < 40; ++t)
      for (Index i = 0; i < a.hidden; ++i) {
        const double d = out(t, i / a.dim, i % a.dim) - want[static_cast<std::size_t>(t * a.hidden + i)];
        sum += d * d;
      }
    return sum / static_cast<double>(40 * a.hidden);
  };
  // The mean squared error falls as 1 / M.
  const double few = error(64), many = error(4096);
  EXPECT_LT(many, few / 8);
  EXPECT_LT(many, 1e-3);
}

TEST(Performer, CausalWithoutAStabilizerReadsNothingLater) {
  Heads a(2, 5);
  CpuExec exec;
  const auto w = favor_projection(16, a.dim, 5);
  PerformerConfig c{.head_dim = a.dim, .causal = true, .key_stabilizer = FavorStabilizer::none};
  const PerformerAttention<CpuExec> attention(c, w.view(), exec);
  Array<3> before({40, 2, 5});
  Backend<CpuExec>::copy(a.run(attention, exec), before.view(), exec);
  for (Index t : {10, 35}) a.k.view()(t, 1, 2) += 5;
  const auto after = a.run(attention, exec);
  for (Index t : {0, 9, 23, 34})
    EXPECT_TRUE(std::equal(after.at(t, 1), after.at(t, 1) + 5, before.view().at(t, 1)));
  EXPECT_NE(after(10, 1, 0), before.view()(10, 1, 0));
}

TEST(Performer, Refuses) {
  CpuExec exec;
  const auto w = favor_projection(4, 3, 1);
  auto make = [&](const PerformerConfig& c, View<const float, 2> projection) {
    return refusal([&] { PerformerAttention<CpuExec>(c, projection, exec); });
  };
  EXPECT_EQ(make({.head_dim = 4}, {}),
            "PerformerAttention: there is no projection, expected one for softmax features");
  EXPECT_EQ(make({.head_dim = 4}, w.view()),
            "PerformerAttention: projection has shape [4, 3], expected [4, 4]");
  EXPECT_EQ(make({.head_dim = 3, .causal = true, .guard = 1}, w.view()),
            "PerformerAttention: guard is 1.000000, expected 0 when causal");
  Heads a(2, 5);
  const PerformerAttention<CpuExec> attention({.head_dim = 3}, w.view(), exec);
  EXPECT_EQ(refusal([&] { a.run(attention, exec); }),
            "PerformerAttention: q has shape [40, 2, 5], expected heads of 3 channels");
}

}  // namespace
}  // namespace ashlar
