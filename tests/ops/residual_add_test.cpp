// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/residual_add.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

TEST(ResidualAdd, AddsAndRefusesOtherShapes) {
  std::mt19937 rng(1);
  for (const auto& [tokens, dim] : {std::pair<Index, Index>(0, 4), {1, 1}, {7, 63}, {130, 700}})
    for (CpuExec& exec : test::contexts()) {
      test::Array<2> x({tokens, dim}), h({tokens, dim});
      x.normal(rng), h.normal(rng);
      test::Array<2> want = h;
      for (Index t = 0; t < tokens; ++t)
        for (Index i = 0; i < dim; ++i) want.view()(t, i) += x.view()(t, i);
      residual_add({x.cview(), h.view()}, exec);
      test::expect_close(h.view(), want.cview(), [](Index) { return 0; });
      h.expect_padding_untouched();
      // With factors: two products and a sum.
      for (Index t = 0; t < tokens; ++t)
        for (Index i = 0; i < dim; ++i) want.view()(t, i) = 0.75f * want.view()(t, i) - 1.5f * x.view()(t, i);
      residual_add({x.cview(), h.view(), -1.5f, 0.75f}, exec);
      test::expect_close(h.view(), want.cview(), [](Index) { return 16 * test::kEps; });
    }
  test::Array<2> x({2, 3}), h({2, 4});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              residual_add({x.cview(), h.view()}, exec);
            }),
            "residual_add: h has shape [2, 4], expected [2, 3]");
}

}  // namespace
}  // namespace ashlar
