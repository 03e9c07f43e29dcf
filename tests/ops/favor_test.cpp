// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/favor.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

TEST(FavorFeatures, MatchTheEquation) {
  std::mt19937 rng(1);
  const std::vector<Index> starts{0, 0, 4, 11};
  for (Index features : {1, 7, 16, 67})
    for (Index dim : {1, 5, 33})
      for (auto kind : {FavorFeatures::softmax, FavorFeatures::relu})
        for (auto stabilizer : {FavorStabilizer::none, FavorStabilizer::row, FavorStabilizer::sequence}) {
          Array<3> x({11, 2, dim}), projected({11, 2, features}), out({11, 2, features});
          x.normal(rng), projected.normal(rng, 4);
          std::vector<double> expected(static_cast<std::size_t>(out.count()));
          const View<double, 3> want(expected.data(), {11, 2, features});
          ref::favor_features<double>({x.exact(), projected.exact(), want, starts,
                                       FavorFeaturesArgs<double>::Kind(kind), stabilizer, 0.75, 1e-3});
          for (CpuExec& exec : test::contexts()) {
            FavorFeatures args{x.cview(), projected.cview(), out.poison().view(), starts, kind, stabilizer};
            args.scale = 0.75f, args.eps = 1e-3f;
            favor_features(args, exec);
            // The exponential multiplies the error of its argument, and that of |x|^2.
            const double argument = 4 * test::largest(projected.cview()) + static_cast<double>(dim) * 16;
            test::expect_close(out.view(), want, [&](Index i) {
              return (8 + argument) * test::kEps * std::abs(expected[static_cast<std::size_t>(i)]);
            });
            out.expect_padding_untouched();
          }
        }
}

TEST(FavorFeatures, MayBeWrittenOverTheProducts) {
  std::mt19937 rng(2);
  Array<3> x({3, 2, 4}), projected({3, 2, 9}), out({3, 2, 9});
  x.normal(rng), projected.normal(rng);
  CpuExec exec;
  favor_features({x.cview(), projected.cview(), out.view()}, exec);
  favor_features({x.cview(), projected.cview(), projected.view()}, exec);
  test::expect_close(projected.view(), out.cview(), [](Index) { return 0; });
}

TEST(FavorFeatures, Refuse) {
  Array<3> x({3, 2, 4}), projected({3, 2, 9}), out({3, 2, 8});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              favor_features({x.cview(), projected.cview(), out.view()}, exec);
            }),
            "favor_features: out has shape [3, 2, 8], expected [3, 2, 9]");
  EXPECT_EQ(test::refusal([&] {
              favor_features({{}, projected.cview(), projected.view()}, exec);
            }),
            "favor_features: softmax features were asked for without x");
}

TEST(FavorProjection, IsOrthogonalBlockByBlockAndTheSameForASeed) {
  for (Index dim : {1, 6, 32})
    for (FavorScaling scaling : {FavorScaling::gaussian, FavorScaling::regular}) {
      const Index features = 2 * dim + dim / 2 + 1;
      const auto w = favor_projection(features, dim, 7, scaling);
      double squares = 0;
      for (Index i = 0; i < features; ++i)
        for (Index j = i / dim * dim; j <= i; ++j) {
          double product = 0;
          for (Index c = 0; c < dim; ++c) product += double(w.view()(i, c)) * w.view()(j, c);
          const double bound = 8 * static_cast<double>(dim) * test::kEps;
          if (i != j) {
            EXPECT_NEAR(product, 0, bound * 4);
          }
          if (i == j && scaling == FavorScaling::regular) {
            EXPECT_NEAR(product, static_cast<double>(dim), bound);
          }
          if (i == j) squares += product;
        }
      // |w|^2 is chi-squared: its mean is dim, of variance 2 dim.
      const double count = static_cast<double>(features), d = static_cast<double>(dim);
      EXPECT_NEAR(squares / count, d, 5 * std::sqrt(2 * d / count));
      const auto again = favor_projection(features, dim, 7, scaling),
                 other = favor_projection(features, dim, 8, scaling);
      EXPECT_TRUE(std::equal(w.data(), w.data() + w.size(), again.data()));
      if (dim > 1) {
        EXPECT_FALSE(std::equal(w.data(), w.data() + w.size(), other.data()));
      }
    }
  EXPECT_EQ(test::refusal([] { favor_projection(0, 4, 1); }),
            "favor_projection: a projection of 0 features of 4 channels, expected 1 or more");
}

}  // namespace
}  // namespace ashlar
