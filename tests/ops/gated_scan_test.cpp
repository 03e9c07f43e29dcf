// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/gated_scan.hpp"

#include "ashlar/ops/linear_recurrence.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Problem {
  Array<2> x, g, out;
  std::vector<Index> starts;
  std::vector<RecurrentState> states;
  std::vector<RecurrentState*> pointers;

  Problem(std::vector<Index> lengths, Index dim, std::mt19937& rng) : x({0, 0}), g({0, 0}), out({0, 0}) {
    starts.push_back(0);
    for (Index length : lengths) starts.push_back(starts.back() + length);
    x = Array<2>({starts.back(), dim}), g = x, out = x;
    x.normal(rng), g.uniform(rng, -3, 0);
    Tensor<float, 3> s({1, 1, dim});
    std::normal_distribution<float> normal;
    for (std::size_t n = 0; n < lengths.size(); ++n) {
      for (Index i = 0; i < dim; ++i) s.data()[i] = normal(rng);
      states.emplace_back(1, 1, dim), states.back().import_from(s.view(), 5);
    }
    for (RecurrentState& state : states) pointers.push_back(&state);
  }
  GatedScan args() { return {x.cview(), g.cview(), out.poison().view(), starts, pointers}; }
  std::vector<float> state(std::size_t n) const {
    const Index dim = states[n].value_dim();
    std::vector<float> values(static_cast<std::size_t>(dim));
    states[n].export_to({values.data(), {1, 1, dim}});
    return values;
  }
};

TEST(Hgrn, MatchesTheEquationAndLeavesTheLastState) {
  std::mt19937 rng(1);
  for (Index dim : {1, 7, 63, 67, 130})
    for (const std::vector<Index>& lengths : {std::vector<Index>{1}, {0}, {67}, {7, 0, 1, 63}, {130, 2}}) {
      for (std::size_t c = 0; c < test::contexts().size(); ++c) {
        CpuExec exec = std::move(test::contexts()[c]);
        Problem p(lengths, dim, rng);
        const Index tokens = p.starts.back(), sequences = static_cast<Index>(lengths.size());
        if (tokens > 3) p.g.view()(0, 0) = -std::numeric_limits<float>::infinity(), p.g.view()(1, 0) = -90;
        if (tokens > 3) p.g.view()(2, 0) = 0, p.g.view()(3, 0) = -1e-12f;
        std::vector<double> states, expected(static_cast<std::size_t>(tokens * dim));
        for (std::size_t n = 0; n < lengths.size(); ++n)
          for (float e : p.state(n)) states.push_back(e);
        const View<double, 2> want(expected.data(), {tokens, dim});
        GatedScanArgs<double> exact{p.x.exact(), p.g.exact(), want, p.starts};
        ref::hgrn<double>(exact, {states.data(), {sequences, dim}});
        hgrn(p.args(), exec);
        // Each step rounds three times, and decays what was rounded before by at least a little.
        double most = 1;
        for (double e : expected) most = std::max(most, std::abs(e));
        test::expect_close(p.out.view(), want, [&](Index) { return 20 * test::kEps * most; });
        p.out.expect_padding_untouched();
        for (std::size_t n = 0; n < lengths.size(); ++n) {
          EXPECT_EQ(p.states[n].position(), 5 + lengths[n]);
          const auto got = p.state(n);
          for (std::size_t i = 0; i < got.size(); ++i)
            EXPECT_NEAR(got[i], states[n * got.size() + i], 20 * test::kEps * most);
        }
        // The state's padding behind D stays zero.
        const auto raw = p.states[0].raw();
        for (std::size_t i = static_cast<std::size_t>(dim) * sizeof(float); i < raw.size(); ++i)
          ASSERT_EQ(raw[i], std::byte{0});
      }
    }
}

TEST(Hgrn, PartsBatchesAndThreadsAreBitEqual) {
  std::mt19937 rng(2);
  Problem whole({40, 0, 23}, 70, rng), parts = whole, alone = whole;
  for (Problem* p : {&whole, &parts, &alone})
    for (std::size_t n = 0; n < 3; ++n) p->pointers[n] = &p->states[n];
  CpuExec one({1}), three({3});
  hgrn(whole.args(), three);
  parts.out.poison(), alone.out.poison();
  auto piece = [&](Problem& p, std::size_t n, Index begin, Index end) {
    RecurrentState* const states[] = {&p.states[n]};
    hgrn({p.x.cview().slice(0, begin, end),
          p.g.cview().slice(0, begin, end),
          p.out.view().slice(0, begin, end),
          {},
          states},
         one);
  };
  for (Index t : {0, 1, 7, 8}) piece(parts, 0, t, t == 8 ? 40 : t == 7 ? 8 : t == 1 ? 7 : 1);
  piece(parts, 2, 40, 63), piece(alone, 0, 0, 40), piece(alone, 2, 40, 63);
  for (Problem* p : {&parts, &alone}) {
    test::expect_close(p->out.view(), whole.out.cview(), [](Index) { return 0; });
    for (std::size_t n = 0; n < 3; ++n) EXPECT_EQ(p->state(n), whole.state(n));
  }
}

TEST(Hgrn, WritesOverItsInputAndRunsWithoutStates) {
  std::mt19937 rng(3);
  Problem p({30}, 33, rng);
  CpuExec exec;
  GatedScan args = p.args();
  args.states = {};
  hgrn(args, exec);
  Array<2> x = p.x;
  args.x = x.cview(), args.out = x.view();
  hgrn(args, exec);
  test::expect_close(x.view(), p.out.cview(), [](Index) { return 0; });
}

// Of every number of kept tokens, behind steps and longer pieces.
TEST(Hgrn, TokensAreTakenBackExactly) {
  std::mt19937 rng(5);
  CpuExec exec;
  for (Index dim : {1, 67, 130})
    for (Index keep : {1, 3, 8}) {
      Problem p({40}, dim, rng);
      auto piece = [&](RecurrentState& state, Index begin, Index end) {
        RecurrentState* const states[] = {&state};
        hgrn({p.x.cview().slice(0, begin, end),
              p.g.cview().slice(0, begin, end),
              p.out.view().slice(0, begin, end),
              {},
              states},
             exec);
      };
      std::vector<RecurrentState> after{p.states[0]};
      for (Index t = 0; t < 40; ++t) after.push_back(after.back()), piece(after.back(), t, t + 1);
      RecurrentState state = p.states[0];
      state.keep_updates(keep);
      Index at = 0, least = 0;  // the tokens seen, and those that certainly are kept
      while (at < 40) {
        const Index length = std::min<Index>(40 - at, static_cast<Index>(rng() % 12));
        piece(state, at, at + length);
        at += length, least = std::min(keep, least + length);
        ASSERT_GE(state.kept_tokens(), least);
        for (Index back = 0; back <= state.kept_tokens(); ++back) {
          RecurrentState copy = state;
          copy.rollback(back);
          ASSERT_EQ(copy.save(), after[static_cast<std::size_t>(at - back)].save()) << at << " " << back;
        }
        EXPECT_NE(test::refusal([&] { state.rollback(state.kept_tokens() + 1); }), "");
        if (const Index back = static_cast<Index>(rng()) % (least + 1)) {
          state.rollback(back);
          at -= back, least -= back;
        }
      }
      // Another recurrence would need the updates.
      Tensor<float, 3> row({1, 1, dim}), k({1, 1, 1});
      LinearRecurrence args{k.view(), k.view(), row.view()};
      RecurrentState* const states[] = {&state};
      args.out = row.view(), args.states = states;
      EXPECT_EQ(test::refusal([&] { linear_recurrence(args, exec); }),
                "linear_recurrence: a state keeps updates of a scan, expected none or a linear recurrence's");
      state.keep_updates(2);
      linear_recurrence(args, exec);
      EXPECT_EQ(test::refusal([&] { piece(state, 0, 1); }),
                "hgrn: states[0] keeps updates of linear_recurrence, expected none or a scan's");
    }
}

TEST(Hgrn, RefusesBadInputBeforeItWrites) {
  std::mt19937 rng(4);
  CpuExec exec;
  auto refused = [&](auto&& change) {
    Problem p({3, 4}, 9, rng);
    GatedScan args = p.args();
    change(p, args);
    const auto before = p.state(0);
    const std::string sentence = test::refusal([&] { hgrn(args, exec); });
    EXPECT_EQ(p.state(0), before);
    EXPECT_TRUE(std::isnan(p.out.view()(0, 0)));
    return sentence;
  };
  EXPECT_EQ(refused([](Problem& p, GatedScan&) { p.g.view()(5, 8) = 0.5f; }),
            "hgrn: g[5, 8] is 0.500000, expected a log decay up to 0");
  EXPECT_EQ(refused([](Problem& p, GatedScan&) { p.g.view()(0, 2) = NAN; }).substr(0, 12), "hgrn: g[0, 2");
  EXPECT_EQ(refused([](Problem& p, GatedScan& a) { a.g = p.g.cview().slice(1, 0, 8); }),
            "hgrn: g has shape [7, 8], expected [7, 9]");
  EXPECT_EQ(refused([](Problem& p, GatedScan&) { p.starts[1] = 9; }),
            "hgrn: offsets[2] is 7, less than the one before it, 9");
  EXPECT_EQ(refused([](Problem&, GatedScan& a) { a.states = a.states.first(1); }),
            "hgrn: 1 states were given, expected one for each of 2 sequences");
  EXPECT_EQ(refused([](Problem& p, GatedScan&) { p.states[1] = RecurrentState(1, 1, 8); }),
            "hgrn: states[1] has shape [1, 1, 8], expected [1, 1, 9]");
  EXPECT_EQ(refused([](Problem& p, GatedScan&) { p.states[1] = RecurrentState(1, 1, 9, DType::bf16); }),
            "hgrn: states[1] is bf16, expected f32");
  EXPECT_EQ(refused([](Problem& p, GatedScan&) { p.states[1].keep_updates(3, 2); }),
            "hgrn: states[1] keeps updates of 2 substeps a token, expected 1");
}

}  // namespace
}  // namespace ashlar
