// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/short_conv.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  std::vector<Index> offsets;
  Index channels, width;
};

// Everything a call needs, random; states are [W - 1, C] each.
struct Data {
  Index tokens;
  std::vector<Index> offsets;
  Array<2> x, weight, out;
  Array<1> bias;
  std::vector<std::vector<float>> states;

  Data(const Shape& s, std::mt19937& rng, Index weight_padding = 3)
      : tokens(s.offsets.back()),
        offsets(s.offsets),
        x({tokens, s.channels}),
        weight({s.channels, s.width}, weight_padding),
        out({tokens, s.channels}),
        bias({s.channels}),
        states(s.offsets.size() - 1) {
    x.normal(rng), weight.normal(rng), bias.normal(rng);
    std::normal_distribution<float> n;
    for (auto& state : states) {
      state.resize(static_cast<std::size_t>((s.width - 1) * s.channels));
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

TEST(ShortConv, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Shape& s : {Shape{{0, 1}, 1, 4}, Shape{{0, 7}, 63, 4}, Shape{{0, 0, 2, 2, 65, 67}, 67, 4},
                         Shape{{0, 130}, 130, 3}, Shape{{0, 5, 6, 70}, 31, 1}, Shape{{0, 3, 9}, 16, 9},
                         Shape{{0, 1, 2, 3}, 1100, 4}, Shape{{0, 0}, 8, 4}, Shape{{0, 63}, 7, 2}})
    for (Index weight_padding : {0, 3})
      for (bool with_states : {true, false})
        for (Activation f : {Activation::silu, Activation::identity}) {
          Data d(s, rng, weight_padding);
          std::vector<std::vector<double>> states;
          for (auto& state : d.states) states.emplace_back(state.begin(), state.end());
          const auto exact = pointers(states);
          std::vector<double> expected(static_cast<std::size_t>(d.tokens * s.channels));
          ShortConvArgs<double> want{
              d.x.exact(), d.weight.exact(), d.bias.exact(), {expected.data(), {d.tokens, s.channels}},
              f,           d.offsets};
          if (with_states) want.states = exact;
          ref::short_conv(want);
          // Each of W + 1 terms passes at most W roundings; silu has a slope of at most 1.1 and 4 ulp of its
          // own.
          const double terms = static_cast<double>(s.width + 1) * 4.5 * 4.5,
                       unit = static_cast<double>(s.width + 6);
          for (CpuExec& exec : test::contexts()) {
            auto after = d.states;
            const auto now = pointers(after);
            ShortConv args{d.x.cview(), d.weight.cview(), d.bias.cview(), d.out.poison().view(),
                           f,           d.offsets};
            if (with_states) args.states = now;
            short_conv(args, exec);
            test::expect_close(d.out.view(), want.out,
                               [&](Index) { return 0.5 * unit * test::kEps * terms; });
            d.out.expect_padding_untouched();
            for (std::size_t n = 0; n < after.size() && with_states; ++n)
              for (std::size_t i = 0; i < after[n].size(); ++i)
                ASSERT_EQ(after[n][i], states[n][i]) << n << " " << i;
          }
        }
}

// A sequence in one piece, cut into pieces with its state carried, and packed among others: the same bits.
TEST(ShortConv, IsTheSameHoweverItIsCutOrPacked) {
  std::mt19937 rng(2);
  for (Index width : {4, 5, 1}) {
    Data d({{0, 70}, 67, width}, rng);
    for (CpuExec& exec : test::contexts()) {
      auto whole = d.states;
      const auto whole_at = pointers(whole);
      ShortConv args{d.x.cview(), d.weight.cview(), d.bias.cview(), d.out.poison().view()};
      args.states = whole_at;
      short_conv(args, exec);
      for (const std::vector<Index>& cuts : {std::vector<Index>{1, 2, 3, 4, 5, 69}, {64}, {0, 2, 33}}) {
        auto state = d.states;
        const auto at = pointers(state);
        Array<2> pieces({70, 67});
        Index begin = 0;
        for (std::size_t i = 0; i <= cuts.size(); ++i) {
          const Index end = i < cuts.size() ? cuts[i] : 70;
          args.x = d.x.cview().slice(0, begin, end), args.out = pieces.view().slice(0, begin, end),
          args.states = at;
          short_conv(args, exec);
          begin = end;
        }
        test::expect_close(pieces.view(), d.out.cview(), [](Index) { return 0; });
        EXPECT_EQ(state, whole);
      }
      // Packed behind and before copies of itself that begin with other states.
      Array<2> three({210, 67}), packed({210, 67});
      for (Index t = 0; t < 210; ++t)
        for (Index c = 0; c < 67; ++c) three.view()(t, c) = d.x.view()(t % 70, c);
      std::vector<std::vector<float>> states{std::vector<float>(d.states[0].size(), 1), d.states[0],
                                             std::vector<float>(d.states[0].size(), 2)};
      const auto at = pointers(states);
      const std::vector<Index> offsets{0, 70, 140, 210};
      short_conv(
          {three.cview(), d.weight.cview(), d.bias.cview(), packed.view(), Activation::silu, offsets, at},
          exec);
      test::expect_close(packed.view().slice(0, 70, 140), d.out.cview(), [](Index) { return 0; });
      EXPECT_EQ(states[1], whole[0]);
    }
  }
}

// States that are columns of a wider array: the same bits, and nothing beside them is touched.
TEST(ShortConv, StatesMayHaveRowsApart) {
  std::mt19937 rng(5);
  for (Index width : {2, 4, 5})
    for (Index tokens : {1, 2, 9}) {
      Data d({{0, tokens}, 67, width}, rng);
      Array<2> wide({width - 1, 67}, 5), out({tokens, 67});
      for (Index i = 0; i < width - 1; ++i) std::copy_n(d.states[0].data() + i * 67, 67, wide.view().at(i));
      const auto packed = pointers(d.states);
      const std::vector<float*> apart{wide.view().data};
      CpuExec exec;
      ShortConv args{d.x.cview(), d.weight.cview(), {}, d.out.poison().view()};
      args.states = packed;
      short_conv(args, exec);
      args.out = out.poison().view(), args.states = apart, args.state_stride = wide.view().strides[0];
      short_conv(args, exec);
      test::expect_close(out.view(), d.out.cview(), [](Index) { return 0; });
      test::expect_close(wide.view(), View<const float, 2>(packed[0], {width - 1, 67}),
                         [](Index) { return 0; });
      wide.expect_padding_untouched();
    }
}

TEST(ShortConv, DoesNotDependOnThreads) {
  std::mt19937 rng(3);
  Data d({{0, 100, 103, 300}, 1100, 4}, rng);
  auto states = d.states;
  const auto at = pointers(states), other = pointers(d.states);
  Array<2> many({300, 1100});
  CpuExec single({1}), three({3});
  ShortConv args{d.x.cview(), d.weight.cview(), {}, d.out.view(), Activation::silu, d.offsets, at};
  short_conv(args, single);
  args.out = many.view(), args.states = other;
  short_conv(args, three);
  test::expect_close(many.view(), d.out.cview(), [](Index) { return 0; });
  EXPECT_EQ(states, d.states);
}

TEST(ShortConv, RefusesWhatDoesNotFit) {
  std::mt19937 rng(4);
  Data d({{0, 3, 6}, 8, 4}, rng);
  CpuExec exec;
  Array<2> other({7, 4}), none({8, 0});
  std::vector<float*> states{d.states[0].data()};
  ShortConv good{d.x.cview(), d.weight.cview(), d.bias.cview(), d.out.view(), Activation::silu, d.offsets};
  ShortConv args = good;
  args.weight = other.cview();
  EXPECT_EQ(test::refusal([&] { short_conv(args, exec); }),
            "short_conv: weight has shape [7, 4], expected [8, 4]");
  args.weight = none.cview();
  EXPECT_EQ(test::refusal([&] { short_conv(args, exec); }),
            "short_conv: weight has shape [8, 0], expected [C, W] with W >= 1");
  args = good, args.states = states;
  EXPECT_EQ(test::refusal([&] { short_conv(args, exec); }),
            "short_conv: 1 states were given, expected one for each of 2 sequences");
  states.push_back(nullptr), args.states = states;
  EXPECT_EQ(test::refusal([&] { short_conv(args, exec); }), "short_conv: states[1] is null");
  args.state_stride = 7;
  EXPECT_EQ(test::refusal([&] { short_conv(args, exec); }),
            "short_conv: state_stride is 7, expected 0 or at least the 8 channels");
  const std::vector<Index> offsets{0, 4};
  args = good, args.offsets = offsets;
  EXPECT_EQ(test::refusal([&] { short_conv(args, exec); }),
            "short_conv: offsets end at 4, expected 6 tokens");
}

}  // namespace
}  // namespace ashlar
