// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/feature_map.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

TEST(Dpfp, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (Index dim : {1, 3, 7, 16, 67})
    for (Index nu : {1, 4, 9})
      for (Index tokens : {0, 1, 7}) {
        Array<3> x({tokens, 2, dim}), out({tokens, 2, 2 * dim * nu});
        x.normal(rng);
        std::vector<double> expected(static_cast<std::size_t>(out.count()));
        const View<double, 3> want(expected.data(), {tokens, 2, 2 * dim * nu});
        ref::dpfp<double>({x.exact(), want, nu});
        for (CpuExec& exec : test::contexts()) {
          dpfp({x.cview(), out.poison().view(), nu}, exec);
          test::expect_close(out.view(), want, [&](Index i) {
            return test::kEps * std::abs(expected[static_cast<std::size_t>(i)]);
          });
          out.expect_padding_untouched();
        }
      }
}

TEST(Hedgehog, MatchesTheEquationAndSumsToOne) {
  std::mt19937 rng(2);
  for (Index dim : {1, 7, 16, 67})
    for (float size : {1.0f, 60.0f}) {
      Array<3> x({5, 3, dim}), out({5, 3, 2 * dim});
      x.normal(rng, size);
      std::vector<double> expected(static_cast<std::size_t>(out.count()));
      const View<double, 3> want(expected.data(), {5, 3, 2 * dim});
      ref::hedgehog<double>({x.exact(), want});
      for (CpuExec& exec : test::contexts()) {
        hedgehog({x.cview(), out.poison().view()}, exec);
        // Of the sum, of the exponential, and of its argument, in which two numbers are subtracted.
        const double most = 2 * test::largest(x.cview());
        test::expect_close(out.view(), want, [&](Index i) {
          return (4 + static_cast<double>(dim) + 2 * most) * test::kEps *
                     std::abs(expected[static_cast<std::size_t>(i)]) +
                 1e-37;
        });
        out.expect_padding_untouched();
      }
    }
}

TEST(FeatureMaps, RefuseShapesThatDiffer) {
  Array<3> x({2, 2, 4}), out({2, 2, 7});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              dpfp({x.cview(), out.view(), 1}, exec);
            }),
            "dpfp: out has shape [2, 2, 7], expected [2, 2, 8]");
  EXPECT_EQ(test::refusal([&] {
              dpfp({x.cview(), out.view(), 0}, exec);
            }),
            "dpfp: nu is 0, expected 1 or more");
  EXPECT_EQ(test::refusal([&] {
              hedgehog({x.cview(), out.view()}, exec);
            }),
            "hedgehog: out has shape [2, 2, 7], expected [2, 2, 8]");
}

}  // namespace
}  // namespace ashlar
