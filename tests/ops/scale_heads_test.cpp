// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/scale_heads.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

TEST(ScaleHeads, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const auto& [tokens, heads, from, dim] : {std::tuple<Index, Index, Index, Index>{1, 1, 1, 1},
                                                 {7, 6, 2, 63},
                                                 {5, 4, 4, 67},
                                                 {0, 2, 1, 8},
                                                 {130, 3, 1, 16},
                                                 {3, 2, 2, 130},
                                                 {3, 2, 2, 0}})
    for (bool per_channel : {false, true})
      for (bool constant : {false, true})
        for (bool add : {false, true}) {
          if (dim == 0 && per_channel) continue;  // no factors at all
          const Index width = per_channel ? dim : 1;
          Array<3> x({tokens, from, dim}), each({tokens, heads, width}), more({tokens, heads, dim}),
              out({tokens, heads, dim});
          Array<1> all({heads * width});
          x.normal(rng), each.normal(rng), more.normal(rng), all.normal(rng);
          std::vector<double> expected(static_cast<std::size_t>(tokens * heads * dim));
          const View<const double, 1> exact = all.exact();
          ScaleHeadsArgs<double> want{x.exact(),
                                      constant ? constant_scale(exact, tokens, width) : each.exact(),
                                      {expected.data(), {tokens, heads, dim}}};
          if (add) want.add = more.exact();
          ref::scale_heads(want);
          for (CpuExec& exec : test::contexts()) {
            ScaleHeads args{x.cview(), constant ? constant_scale(all.cview(), tokens, width) : each.cview(),
                            out.poison().view()};
            if (add) args.add = more.cview();
            scale_heads(args, exec);
            // A product and a sum of numbers up to 5.
            test::expect_close(out.view(), want.out, [](Index) { return test::kEps * 30; });
            out.expect_padding_untouched();
          }
        }
}

TEST(ScaleHeads, WritesOverWhatItAddsAndDoesNotDependOnThreads) {
  std::mt19937 rng(2);
  Array<3> x({900, 2, 67}), scale({900, 6, 1}), y({900, 6, 67}), out({900, 6, 67});
  x.normal(rng), scale.normal(rng), y.normal(rng);
  CpuExec single({1}), three({3});
  scale_heads({x.cview(), scale.cview(), out.view(), y.cview()}, single);
  scale_heads({x.cview(), scale.cview(), y.view(), y.cview()}, three);
  test::expect_close(y.view(), out.cview(), [](Index) { return 0; });
}

TEST(ScaleHeads, RefusesWhatDoesNotFit) {
  Array<3> x({2, 2, 8}), scale({2, 3, 1}), out({2, 3, 8}), good({2, 1, 8});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              scale_heads({x.cview(), scale.cview(), out.view()}, exec);
            }),
            "scale_heads: x has 2 heads, expected a divisor of out's 3");
  EXPECT_EQ(test::refusal([&] {
              scale_heads({good.cview(), scale.cview().slice(1, 0, 2), out.view()}, exec);
            }),
            "scale_heads: scale has shape [2, 2, 1], expected [2, 3, 1]");
  EXPECT_EQ(test::refusal([&] {
              scale_heads({good.cview(), scale.cview(), out.view(), x.cview()}, exec);
            }),
            "scale_heads: add has shape [2, 2, 8], expected [2, 3, 8]");
}

}  // namespace
}  // namespace ashlar
