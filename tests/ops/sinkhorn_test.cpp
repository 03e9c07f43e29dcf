// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/sinkhorn.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

TEST(Sinkhorn, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (Index rows : {1, 7, 63})
    for (Index columns : {1, 5, 16, 33})
      for (bool columns_first : {false, true})
        for (Index iterations : {0, 1, 8}) {
          Array<3> logits({3, rows, columns}), out({3, rows, columns});
          logits.normal(rng, 3);
          std::vector<double> expected(static_cast<std::size_t>(out.count()));
          const View<double, 3> want(expected.data(), {3, rows, columns});
          const double clip = iterations == 1 ? 1 : 0;
          ref::sinkhorn<double>({logits.exact(), want, iterations, 0.75, clip, columns_first});
          // A half of an iteration adds the rounding of R, of a sum and of its logarithm.
          const double steps = 2.0 * static_cast<double>(iterations) + 1;
          const double bound =
              steps * (8 + 2 * test::largest(logits.cview()) + static_cast<double>(std::max(rows, columns))) *
              test::kEps;
          for (CpuExec& exec : test::contexts()) {
            sinkhorn({logits.cview(), out.poison().view(), iterations, 0.75f, static_cast<float>(clip),
                      columns_first},
                     exec);
            test::expect_close(out.view(), want, [&](Index i) {
              return bound * std::abs(expected[static_cast<std::size_t>(i)]);
            });
            out.expect_padding_untouched();
          }
        }
}

TEST(Sinkhorn, RowsAndColumnsSumToOne) {
  std::mt19937 rng(2);
  Array<3> r({2, 9, 9});
  r.normal(rng);
  CpuExec exec;
  sinkhorn({r.cview(), r.view(), 100}, exec);
  for (Index n = 0; n < 2; ++n)
    for (Index i = 0; i < 9; ++i) {
      double row = 0, column = 0;
      for (Index j = 0; j < 9; ++j) row += r.view()(n, i, j), column += r.view()(n, j, i);
      EXPECT_NEAR(row, 1, 200 * test::kEps);
      EXPECT_NEAR(column, 1, 200 * test::kEps);
    }
}

TEST(Blocks, AreSummedAndMixed) {
  std::mt19937 rng(3);
  for (Index block : {1, 4})
    for (Index blocks : {0, 1, 7})
      for (Index dim : {1, 5, 33}) {
        const Index tokens = block * blocks;
        Array<3> x({tokens, 2, dim}), sums({blocks, 2, dim}), mixed({tokens, 2, dim}),
            weights({2, blocks, blocks});
        x.normal(rng), weights.uniform(rng, 0, 1);
        std::vector<double> sum_memory(static_cast<std::size_t>(sums.count())),
            mix_memory(static_cast<std::size_t>(mixed.count()));
        const View<double, 3> want_sums(sum_memory.data(), {blocks, 2, dim}),
            want_mixed(mix_memory.data(), {tokens, 2, dim});
        const double most = tokens == 0 ? 0 : test::largest(x.cview());
        ref::sum_blocks<double>({x.exact(), want_sums, block});
        for (CpuExec& exec : test::contexts()) {
          sum_blocks({x.cview(), sums.poison().view(), block}, exec);
          test::expect_close(sums.view(), want_sums,
                             [&](Index) { return test::kEps * most * double(block * block); });
          sums.expect_padding_untouched();
          for (bool separate : {false, true})
            for (bool weighted : {false, true}) {
              if (!separate && !weighted) continue;
              const View<const float, 3> w = weighted ? weights.cview() : View<const float, 3>();
              ref::mix_blocks<double>(
                  {x.exact(), weighted ? View<const double, 3>(weights.exact()) : View<const double, 3>(),
                   want_mixed, block, separate});
              mix_blocks({x.cview(), w, mixed.poison().view(), block, separate}, exec);
              const double n = static_cast<double>(blocks), size = separate && weighted ? n : 1;
              test::expect_close(mixed.view(), want_mixed,
                                 [&](Index) { return 2 * test::kEps * most * n * n * size; });
              mixed.expect_padding_untouched();
            }
        }
      }
}

TEST(Sinkhorn, Refuses) {
  Array<3> x({6, 2, 3}), out({2, 2, 3}), weights({2, 3, 3});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              sinkhorn({x.cview(), x.view(), 1, 0}, exec);
            }),
            "sinkhorn: temperature is 0.000000, iterations 1, clip 0.000000, expected a positive temperature "
            "and 0 or more of "
            "the others");
  EXPECT_EQ(test::refusal([&] {
              sum_blocks({x.cview(), out.view(), 4}, exec);
            }),
            "sum_blocks: there are 6 tokens in blocks of 4, expected whole blocks");
  EXPECT_EQ(test::refusal([&] {
              mix_blocks({x.cview(), weights.cview(), x.view(), 3}, exec);
            }),
            "mix_blocks: weights has shape [2, 3, 3], expected [2, 2, 2]");
  EXPECT_EQ(test::refusal([&] {
              mix_blocks({x.cview(), {}, x.view(), 3}, exec);
            }),
            "mix_blocks: there are no weights, expected some");
}

}  // namespace
}  // namespace ashlar
