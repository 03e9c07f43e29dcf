// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/moe.hpp"

#include "ashlar/ref/moe.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Ids {
  Ids(Index tokens, Index chosen)
      : memory(static_cast<std::size_t>(tokens * chosen), -1), shape{tokens, chosen} {}
  View<std::int32_t, 2> view() { return {memory.data(), shape}; }
  std::vector<std::int32_t> memory;
  std::array<Index, 2> shape;
};

struct Routing {
  RouterScore score;
  bool biased, renormalize;
  Index groups, chosen_groups;
};

TEST(MoeRoute, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Routing& r :
       {Routing{RouterScore::softmax, false, true, 1, 1}, Routing{RouterScore::softmax, false, false, 1, 1},
        Routing{RouterScore::sigmoid, true, true, 1, 1}, Routing{RouterScore::sigmoid, true, true, 4, 2},
        Routing{RouterScore::sigmoid, false, false, 4, 1}, Routing{RouterScore::softmax, true, true, 4, 4}})
    for (Index tokens : {0, 1, 7, 130})
      for (Index experts : {4, 16, 68, 132})
        for (Index chosen : {1, 3, 4}) {
          Array<2> logits({tokens, experts}), weights({tokens, chosen});
          Array<1> bias({experts});
          logits.normal(rng, 3), bias.normal(rng, 0.3f);
          Ids want_ids(tokens, chosen), ids(tokens, chosen);
          std::vector<double> want(static_cast<std::size_t>(tokens * chosen));
          ref::moe_route(
              MoeRouteArgs<double>{logits.exact(),
                                   r.biased ? View<const double, 1>(bias.exact()) : View<const double, 1>(),
                                   want_ids.view(),
                                   {want.data(), {tokens, chosen}},
                                   r.score,
                                   r.renormalize,
                                   2.5,
                                   r.groups,
                                   r.chosen_groups});
          for (CpuExec& exec : test::contexts()) {
            weights.poison();
            moe_route(MoeRoute{logits.cview(), r.biased ? bias.cview() : View<const float, 1>(), ids.view(),
                               weights.view(), r.score, r.renormalize, 2.5f, r.groups, r.chosen_groups},
                      exec);
            // Random scores are not within rounding of each other.
            EXPECT_EQ(ids.memory, want_ids.memory);
            // An exponential, a sum and a quotient, each within a few eps of 2.5 times at most 1.
            test::expect_close(View<const float, 2>(weights.cview()),
                               View<double, 2>(want.data(), {tokens, chosen}),
                               [](Index) { return 2.5 * 16 * test::kEps; });
            weights.expect_padding_untouched();
          }
        }
}

TEST(MoeRoute, OfEqualScoresTheLowerExpertComesFirst) {
  CpuExec exec;
  Array<2> logits({2, 6}), weights({2, 3});
  logits.each([](float& e) { e = 1; });
  logits.view()(1, 4) = 2;
  Ids ids(2, 3);
  moe_route(MoeRoute{logits.cview(), {}, ids.view(), weights.view()}, exec);
  EXPECT_EQ(ids.memory, (std::vector<std::int32_t>{0, 1, 2, 4, 0, 1}));
  EXPECT_FLOAT_EQ(weights.view()(0, 2), 1 / 3.f);
}

TEST(MoeRoute, ExtremeLogitsGiveDistinctExperts) {
  for (CpuExec& exec : test::contexts()) {
    Array<2> logits({3, 5}), weights({3, 4});
    logits.each([](float& e) { e = -1e30f; });
    logits.view()(0, 3) = 1e30f;
    logits.view()(2, 1) = NAN;
    Ids ids(3, 4);
    moe_route(MoeRoute{logits.cview(), {}, ids.view(), weights.view()}, exec);
    EXPECT_EQ(ids.memory[0], 3);
    EXPECT_EQ(weights.view()(0, 0), 1);
    EXPECT_EQ(weights.view()(0, 1), 0);
    for (std::size_t t = 0; t < 3; ++t) {
      std::vector<std::int32_t> row(ids.memory.begin() + static_cast<std::ptrdiff_t>(4 * t),
                                    ids.memory.begin() + static_cast<std::ptrdiff_t>(4 * t + 4));
      std::sort(row.begin(), row.end());
      EXPECT_EQ(std::unique(row.begin(), row.end()), row.end());
      EXPECT_TRUE(row.front() >= 0 && row.back() < 5);
    }
  }
}

TEST(MoeGroup, SortsPairsByExpertAndToken) {
  std::mt19937 rng(4);
  CpuExec exec;
  for (Index tokens : {0, 1, 7, 130})
    for (Index experts : {3, 64})
      for (Index chosen : {1, 3}) {
        Ids ids(tokens, chosen);
        for (Index t = 0; t < tokens; ++t)
          for (Index j = 0; j < chosen; ++j)
            ids.view()(t, j) = static_cast<std::int32_t>(
                (rng() % static_cast<unsigned>(experts) + static_cast<unsigned>(j)) %
                static_cast<unsigned>(experts));
        const auto size = static_cast<std::size_t>(tokens * chosen);
        struct Result {
          std::vector<Index> offsets, tokens, rows;
          bool operator==(const Result&) const = default;
        };
        auto make = [&] {
          return Result{std::vector<Index>(static_cast<std::size_t>(experts + 1), -1),
                        std::vector<Index>(size, -1), std::vector<Index>(size, -1)};
        };
        auto args = [&](Result& r) {
          return MoeGroup{ids.view(),
                          {r.offsets.data(), {experts + 1}},
                          {r.tokens.data(), {tokens * chosen}},
                          {r.rows.data(), {tokens, chosen}}};
        };
        Result want = make(), got = make();
        ref::moe_group(args(want));
        moe_group(args(got), exec);
        EXPECT_EQ(got, want);
      }
}

TEST(MoeGatherAndCombine, MatchTheirEquations) {
  std::mt19937 rng(6);
  for (Index tokens : {0, 1, 9})
    for (Index dim : {1, 7, 16, 67})
      for (int shared : {0, 1, 2}) {
        constexpr Index kChosen = 3;
        const Index pairs = tokens * kChosen;
        Array<2> x({tokens, dim}), y({pairs, dim}), weights({tokens, kChosen}), part({tokens, dim}),
            gate({tokens, 1}), out({tokens, dim});
        x.normal(rng), weights.uniform(rng, 0, 1), part.normal(rng), gate.normal(rng, 3);
        std::vector<Index> owners, rows;
        for (Index i = 0; i < pairs; ++i)
          owners.push_back((i * 7 + 3) % tokens), rows.push_back((i * 5 + 1) % pairs);
        const View<const Index, 1> tokens_of(owners.data(), {pairs});
        const View<const Index, 2> rows_of(rows.data(), {tokens, kChosen});
        for (CpuExec& exec : test::contexts()) {
          y.poison();
          moe_gather(MoeGather{x.cview(), tokens_of, y.view()}, exec);
          y.expect_padding_untouched();
          for (Index i = 0; i < pairs; ++i)
            for (Index c = 0; c < dim; ++c)
              EXPECT_EQ(y.view()(i, c), x.view()(owners[static_cast<std::size_t>(i)], c));

          std::vector<double> want(static_cast<std::size_t>(tokens * dim));
          const View<double, 2> exact(want.data(), {tokens, dim});
          MoeCombineArgs<double> ref_args{y.exact(), weights.exact(), rows_of, exact};
          MoeCombine args{y.cview(), weights.cview(), rows_of, out.view()};
          if (shared > 0) ref_args.shared = part.exact(), args.shared = part.cview();
          if (shared > 1) ref_args.shared_gate = gate.exact(), args.shared_gate = gate.cview();
          ref::moe_combine(ref_args);
          out.poison();
          moe_combine(args, exec);
          out.expect_padding_untouched();
          // Four products and sums of numbers up to about 4.
          test::expect_close(View<const float, 2>(out.cview()), exact, [](Index) { return 32 * test::kEps; });
        }
      }
}

TEST(Moe, RefusesWhatDoesNotFit) {
  CpuExec exec;
  Array<2> logits({2, 6}), weights({2, 3}), narrow({2, 2});
  Array<1> bias({5});
  logits.each([](float& e) { e = 0; });
  Ids ids(2, 3), many(2, 7);
  auto route = [&](auto&& change) {
    MoeRoute a{logits.cview(), {}, ids.view(), weights.view()};
    change(a);
    return test::refusal([&] { moe_route(a, exec); });
  };
  EXPECT_EQ(route([&](MoeRoute& a) { a.experts = many.view(); }),
            "moe_route: experts has shape [2, 7], expected 1 to 6 experts a token");
  EXPECT_EQ(route([&](MoeRoute& a) { a.weights = narrow.view(); }),
            "moe_route: weights has shape [2, 2], expected [2, 3]");
  EXPECT_EQ(route([&](MoeRoute& a) { a.selection_bias = bias.cview(); }),
            "moe_route: selection_bias has shape [5], expected [6]");
  EXPECT_EQ(route([&](MoeRoute& a) { a.groups = 4; }),
            "moe_route: groups is 4, expected a number that divides 6 experts");
  EXPECT_EQ(route([&](MoeRoute& a) { a.groups = 2, a.chosen_groups = 3; }),
            "moe_route: chosen_groups is 3, expected 1 to 2");
  EXPECT_EQ(ids.memory, std::vector<std::int32_t>(6, -1));

  std::vector<Index> offsets(7), tokens(6, -1), rows(6);
  MoeGroup group{ids.view(), {offsets.data(), {7}}, {tokens.data(), {6}}, {rows.data(), {2, 3}}};
  EXPECT_EQ(test::refusal([&] { moe_group(group, exec); }),
            "moe_group: experts[0, 0] is -1, expected 0 to 5");
  ids.memory.assign(6, 6);
  EXPECT_EQ(test::refusal([&] { moe_group(group, exec); }), "moe_group: experts[0, 0] is 6, expected 0 to 5");

  Array<2> x({2, 4}), y({6, 4}), out({2, 4});
  EXPECT_EQ(test::refusal([&] {
              moe_gather(MoeGather{x.cview(), View<const Index, 1>(tokens.data(), {6}), y.view()}, exec);
            }),
            "moe_gather: tokens[0] is -1, expected 0 to 1");
  rows.assign(6, 6);
  MoeCombine combine{y.cview(), weights.cview(), View<const Index, 2>(rows.data(), {2, 3}), out.view()};
  EXPECT_EQ(test::refusal([&] { moe_combine(combine, exec); }),
            "moe_combine: rows[0, 0] is 6, expected 0 to 5");
  combine.shared_gate = narrow.cview();
  EXPECT_EQ(test::refusal([&] { moe_combine(combine, exec); }),
            "moe_combine: shared_gate was given without shared");
}

}  // namespace
}  // namespace ashlar
