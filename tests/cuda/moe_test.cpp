// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/moe.hpp"

#include <vector>

#include "ashlar/ref/moe.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using test::Both;
using test::error_of;
using test::kFull;

class CudaMoe : public test::CudaTest {};

using Ids = std::vector<std::int32_t>;
View<std::int32_t, 2> rows_of(Ids& ids, Index chosen) {
  return {ids.data(), {static_cast<Index>(ids.size()) / chosen, chosen}};
}

TEST_F(CudaMoe, Route) {
  CudaExec exec;
  for (RouterScore score : {RouterScore::softmax, RouterScore::sigmoid})
    for (Index tokens : {1, 7, 130})
      for (bool biased : {false, true}) {
        constexpr Index kExperts = 68, kChosen = 3;
        const auto logits = Both<float, 2>::random({tokens, kExperts}, 1, -5, 5, biased ? 4 : 0);
        const auto bias = Both<float, 1>::random({kExperts}, 2);
        Both<float, 2> weights({tokens, kChosen}, biased ? 2 : 0);
        Ids ids(static_cast<std::size_t>(tokens * kChosen), -1), want_ids = ids;
        MoeRoute a{.logits = logits.device(),
                   .experts = rows_of(ids, kChosen),
                   .weights = weights.device(),
                   .score = score,
                   .scale = 2.5f,
                   .groups = 4,
                   .chosen_groups = 2};
        if (biased) a.selection_bias = bias.device();
        moe_route(a, exec);
        exec.synchronize();
        const auto wide = logits.wide();
        const auto wide_bias = bias.wide();
        Tensor<double, 2> want({tokens, kChosen});
        MoeRouteArgs<double> exact{.logits = wide.view(),
                                   .experts = rows_of(want_ids, kChosen),
                                   .weights = want.view(),
                                   .score = score,
                                   .scale = 2.5,
                                   .groups = 4,
                                   .chosen_groups = 2};
        if (biased) exact.selection_bias = wide_bias.view();
        ref::moe_route(exact);
        EXPECT_EQ(ids, want_ids);
        EXPECT_LE(error_of(weights, want), kFull);
      }
}

// From the experts of each token to the sum of what they gave back, with few rows (in the kernels' arguments)
// and with many.
TEST_F(CudaMoe, GatherAndCombine) {
  CudaExec exec;
  for (Index tokens : {1, 9, 200})
    for (int shared : {0, 1, 2}) {  // none, plain, with a gate
      constexpr Index kExperts = 8, kChosen = 3, kDim = 301;
      Ids ids;
      for (Index t = 0; t < tokens; ++t)
        for (Index j = 0; j < kChosen; ++j) ids.push_back(static_cast<std::int32_t>((t * 5 + j) % kExperts));
      const Index pairs = tokens * kChosen;
      Tensor<Index, 1> offsets({kExperts + 1}), owner({pairs});
      Tensor<Index, 2> rows({tokens, kChosen});
      moe_group(MoeGroup{rows_of(ids, kChosen), offsets.view(), owner.view(), rows.view()}, exec);
      for (Index t = 0; t < tokens; ++t)
        for (Index j = 0; j < kChosen; ++j) {
          const Index row = rows.view()(t, j), expert = ids[static_cast<std::size_t>(t * kChosen + j)];
          EXPECT_EQ(owner.view()(row), t);
          EXPECT_TRUE(row >= offsets.view()(expert) && row < offsets.view()(expert + 1));
        }

      const auto x = Both<float, 2>::random({tokens, kDim}, 1, -1, 1, 3),
                 weights = Both<float, 2>::random({tokens, kChosen}, 2, 0, 1, 1),
                 other = Both<float, 2>::random({tokens, kDim}, 3, -1, 1, 5),
                 gate = Both<float, 2>::random({tokens, 1}, 4, -30, 30, 2);
      Both<float, 2> gathered({pairs, kDim}, 2), out({tokens, kDim}, 4);
      moe_gather(MoeGather{x.device(), std::as_const(owner).view(), gathered.device()}, exec);
      MoeCombine a{std::as_const(gathered).device(), weights.device(), std::as_const(rows).view(),
                   out.device()};
      if (shared > 0) a.shared = other.device();
      if (shared > 1) a.shared_gate = gate.device();
      moe_combine(a, exec);
      exec.synchronize();

      const auto wx = x.wide(), ww = weights.wide(), wo = other.wide(), wg = gate.wide();
      Tensor<double, 2> want_rows({pairs, kDim}), want({tokens, kDim});
      ref::moe_gather(MoeGatherArgs<double>{wx.view(), std::as_const(owner).view(), want_rows.view()});
      MoeCombineArgs<double> exact{std::as_const(want_rows).view(), ww.view(), std::as_const(rows).view(),
                                   want.view()};
      if (shared > 0) exact.shared = wo.view();
      if (shared > 1) exact.shared_gate = wg.view();
      ref::moe_combine(exact);
      EXPECT_EQ(error_of(gathered, want_rows), 0) << tokens;
      EXPECT_LE(error_of(out, want), kFull) << tokens << " shared " << shared;
    }
}

TEST_F(CudaMoe, Refuses) {
  CudaExec exec;
  const auto x = Both<float, 2>::random({4, 8}, 1);
  Both<float, 2> out({2, 8});
  Tensor<Index, 1> tokens({2});
  tokens.data()[1] = 4;
  EXPECT_THROW(moe_gather(MoeGather{x.device(), std::as_const(tokens).view(), out.device()}, exec), Error);
}

}  // namespace
}  // namespace ashlar
