// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/length_projection.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

TEST(LengthProjection, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const auto& [heads, dim, rank, of_each_head] : {std::tuple<Index, Index, Index, bool>{1, 1, 1, false},
                                                       {3, 7, 5, false},
                                                       {3, 7, 5, true},
                                                       {2, 63, 9, true},
                                                       {1, 130, 4, false},
                                                       {2, 4, 0, false}}) {
    const std::vector<Index> starts{0, 5, 5, 6, 70};
    const Index tokens = starts.back(), sequences = 4;
    for (Index padding : {Index{0}, Index{3}}) {  // without, heads lie side by side
      Array<3> x({tokens, heads, dim}, padding), w({of_each_head ? heads : 1, 64, rank}),
          out({sequences * rank, heads, dim}, padding);
      x.normal(rng), w.normal(rng);
      std::vector<double> expected(static_cast<std::size_t>(out.count()));
      const LengthProjectionArgs<double> want{
          x.exact(), w.exact(), starts, {expected.data(), {sequences * rank, heads, dim}}};
      ref::length_projection(want);
      for (CpuExec& exec : test::contexts()) {
        length_projection({x.cview(), w.cview(), starts, out.poison().view()}, exec);
        // At most 64 products of numbers up to 5, whose partial sums stay below 5 * 5 * 8.
        test::expect_close(out.view(), want.out, [](Index) { return test::kEps * 64 * 200; });
        out.expect_padding_untouched();
      }
    }
  }
}

TEST(LengthProjection, DependsOnNeitherThreadsNorBatch) {
  std::mt19937 rng(2);
  const std::vector<Index> starts{0, 40, 90};
  Array<3> x({90, 3, 20}), w({3, 50, 7}), all({14, 3, 20}), one({7, 3, 20});
  x.normal(rng), w.normal(rng);
  CpuExec single({1}), three({3});
  length_projection({x.cview(), w.cview(), starts, all.view()}, three);
  length_projection({x.cview().slice(0, 40, 90), w.cview(), {}, one.view()}, single);
  test::expect_close(all.view().slice(0, 7, 14), one.cview(), [](Index) { return 0; });
}

TEST(LengthProjection, RefusesWhatDoesNotFit) {
  Array<3> x({6, 2, 4}), w({1, 5, 3}), two({3, 6, 3}), out({3, 2, 4});
  CpuExec exec;
  auto refused = [&](const LengthProjection& a) {
    return test::refusal([&] { length_projection(a, exec); });
  };
  EXPECT_EQ(refused({x.cview(), w.cview(), {}, out.view()}),
            "length_projection: sequence 0 has 6 tokens, expected at most the 5 that weight has");
  EXPECT_EQ(refused({x.cview(), two.cview(), {}, out.view()}),
            "length_projection: weight has 3 heads, expected 1 or the 2 of x");
  EXPECT_EQ(refused({x.cview().slice(0, 0, 5), w.cview(), {}, out.view().slice(0, 0, 2)}),
            "length_projection: out has shape [2, 2, 4], expected [3, 2, 4]");
}

}  // namespace
}  // namespace ashlar
