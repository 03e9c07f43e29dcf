// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/token_shift.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Data {
  std::vector<Index> offsets;
  Index tokens, channels, ways;
  Array<2> x, mu;
  Array<3> each, out;
  std::vector<std::vector<float>> states;

  Data(std::vector<Index> starts, Index channels_, Index ways_, std::mt19937& rng)
      : offsets(std::move(starts)),
        tokens(offsets.back()),
        channels(channels_),
        ways(ways_),
        x({tokens, channels}),
        mu({ways, channels}),
        each({ways, tokens, channels}),
        out({ways, tokens, channels}),
        states(offsets.size() - 1) {
    x.normal(rng), mu.uniform(rng, 0, 1), each.uniform(rng, -1, 2);
    std::normal_distribution<float> n;
    for (auto& state : states) {
      state.resize(static_cast<std::size_t>(channels));
      for (float& e : state) e = n(rng);
    }
  }
};

template <class T>
std::vector<T*> pointers(std::vector<std::vector<T>>& states) {
  std::vector<T*> p;
  for (auto& s : states) p.push_back(s.data());
  return p;
}

TEST(TokenShift, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const auto& [offsets, channels, ways] : {std::tuple{std::vector<Index>{0, 1}, Index{1}, Index{1}},
                                                {{0, 7}, 63, 6},
                                                {{0, 0, 2, 2, 65, 67}, 67, 2},
                                                {{0, 130}, 130, 1},
                                                {{0, 1, 2, 3}, 1100, 5},
                                                {{0, 0}, 8, 2},
                                                {{0, 5}, 16, 0}})
    for (bool with_states : {true, false})
      for (bool constant : {true, false})
        for (bool advance : {true, false}) {
          Data d(offsets, channels, ways, rng);
          std::vector<std::vector<double>> states;
          for (auto& state : d.states) states.emplace_back(state.begin(), state.end());
          const auto exact = pointers(states);
          std::vector<double> expected(static_cast<std::size_t>(ways * d.tokens * channels));
          const View<const double, 2> mu = d.mu.exact();
          TokenShiftArgs<double> want{d.x.exact(),
                                      constant ? constant_mix(mu, d.tokens) : d.each.exact(),
                                      {expected.data(), {ways, d.tokens, channels}},
                                      d.offsets};
          want.advance = advance;
          if (with_states) want.states = exact;
          ref::token_shift(want);
          for (CpuExec& exec : test::contexts()) {
            auto after = d.states;
            const auto now = pointers(after);
            TokenShift args{d.x.cview(), constant ? constant_mix(d.mu.cview(), d.tokens) : d.each.cview(),
                            d.out.poison().view(), d.offsets};
            args.advance = advance;
            if (with_states) args.states = now;
            token_shift(args, exec);
            // A difference of two numbers up to 5, times up to 2, added to one.
            test::expect_close(d.out.view(), want.out, [&](Index) { return 3 * test::kEps * 25; });
            d.out.expect_padding_untouched();
            for (std::size_t n = 0; n < after.size() && with_states; ++n)
              for (std::size_t i = 0; i < after[n].size(); ++i) ASSERT_EQ(after[n][i], states[n][i]);
          }
        }
}

// A sequence in one piece, in pieces with its state carried, and packed among others: the same bits.
TEST(TokenShift, IsTheSameHoweverItIsCutOrPacked) {
  std::mt19937 rng(2);
  Data d({0, 70}, 67, 3, rng);
  CpuExec exec;
  auto whole = d.states;
  const auto whole_at = pointers(whole);
  TokenShift args{d.x.cview(), constant_mix(d.mu.cview(), 70), d.out.view(), d.offsets, whole_at};
  token_shift(args, exec);
  auto state = d.states;
  const auto at = pointers(state);
  Array<3> pieces({3, 70, 67}), packed({3, 140, 67});
  for (const auto& piece : {std::pair<Index, Index>{0, 1}, {1, 2}, {2, 2}, {2, 40}, {40, 70}}) {
    const Index begin = piece.first, end = piece.second;
    token_shift({d.x.cview().slice(0, begin, end),
                 constant_mix(d.mu.cview(), end - begin),
                 pieces.view().slice(1, begin, end),
                 {},
                 at},
                exec);
  }
  test::expect_close(pieces.view(), d.out.cview(), [](Index) { return 0; });
  EXPECT_EQ(state, whole);
  Array<2> twice({140, 67});
  for (Index t = 0; t < 140; ++t)
    for (Index c = 0; c < 67; ++c) twice.view()(t, c) = d.x.view()(t % 70, c);
  std::vector<std::vector<float>> states{std::vector<float>(67, 1), d.states[0]};
  const auto both = pointers(states);
  const std::vector<Index> offsets{0, 70, 140};
  token_shift({twice.cview(), constant_mix(d.mu.cview(), 140), packed.view(), offsets, both}, exec);
  test::expect_close(packed.view().slice(1, 70, 140), d.out.cview(), [](Index) { return 0; });
  EXPECT_EQ(states[1], whole[0]);
}

TEST(TokenShift, DoesNotDependOnThreads) {
  std::mt19937 rng(3);
  Data d({0, 100, 103, 300}, 1100, 2, rng);
  Array<3> many({2, 300, 1100});
  CpuExec single({1}), three({3});
  TokenShift args{d.x.cview(), d.each.cview(), d.out.view(), d.offsets};
  token_shift(args, single);
  args.out = many.view();
  token_shift(args, three);
  test::expect_close(many.view(), d.out.cview(), [](Index) { return 0; });
}

TEST(TokenShift, RefusesWhatDoesNotFit) {
  std::mt19937 rng(4);
  Data d({0, 3, 6}, 8, 2, rng);
  CpuExec exec;
  std::vector<float*> states{d.states[0].data()};
  const TokenShift good{d.x.cview(), d.each.cview(), d.out.view(), d.offsets};
  TokenShift args = good;
  args.mu = d.each.cview().slice(0, 0, 1);
  EXPECT_EQ(test::refusal([&] { token_shift(args, exec); }),
            "token_shift: mu has shape [1, 6, 8], expected [2, 6, 8]");
  args = good, args.x = d.x.cview().slice(0, 0, 5);
  EXPECT_EQ(test::refusal([&] { token_shift(args, exec); }),
            "token_shift: x has shape [5, 8], expected [6, 8]");
  args = good, args.states = states;
  EXPECT_EQ(test::refusal([&] { token_shift(args, exec); }),
            "token_shift: 1 states were given, expected one for each of 2 sequences");
  states.push_back(nullptr), args.states = states;
  EXPECT_EQ(test::refusal([&] { token_shift(args, exec); }), "token_shift: states[1] is null");
  const std::vector<Index> offsets{0, 4};
  args = good, args.offsets = offsets;
  EXPECT_EQ(test::refusal([&] { token_shift(args, exec); }),
            "token_shift: offsets end at 4, expected 6 tokens");
}

}  // namespace
}  // namespace ashlar
