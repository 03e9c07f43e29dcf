// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/channel_attention.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  std::array<Index, 4> x;
  Index heads;
  ChannelWeights weights;
  std::array<Index, 2> tile{0, 0};

  Index dim() const { return x[3] / heads; }
};

const Shape kShapes[] = {
    {{1, 1, 1, 1}, 1, ChannelWeights::softmax},
    {{1, 1, 7, 6}, 2, ChannelWeights::relu},
    {{2, 13, 11, 24}, 4, ChannelWeights::relu, {8, 8}},
    {{1, 9, 17, 30}, 5, ChannelWeights::softmax, {7, 7}},
    {{1, 9, 7, 12}, 3, ChannelWeights::softmax},
    {{1, 10, 10, 90}, 6, ChannelWeights::sigmoid},
    {{1, 12, 19, 63}, 1, ChannelWeights::gelu, {5, 6}},
    {{1, 9, 8, 67}, 67, ChannelWeights::relu, {3, 0}},
    {{1, 20, 21, 130}, 2, ChannelWeights::softmax, {9, 100}},
    {{1, 70, 90, 8}, 1, ChannelWeights::relu},  // several parts
    {{2, 61, 83, 20}, 2, ChannelWeights::softmax, {40, 60}},
    {{1, 1, 5000, 3}, 1, ChannelWeights::gelu},  // a row that is longer than a part
};

struct Data {
  Array<4> q, k, v, out;
  Array<1> temperature;
  Data(const Shape& s, std::mt19937& rng) : q(s.x), k(s.x), v(s.x), out(s.x), temperature({s.heads}) {
    q.normal(rng), k.normal(rng), v.uniform(rng, -1, 1), temperature.uniform(rng, 0.5, 2);
  }
  ChannelAttention args(const Shape& s) {
    return {q.cview(),           k.cview(), v.cview(), out.poison().view(),
            temperature.cview(), s.heads,   s.weights, s.tile};
  }
  ChannelAttentionArgs<double> exact(const Shape& s, View<double, 4> want) {
    return {q.exact(), k.exact(), v.exact(), want, temperature.exact(), s.heads, s.weights, s.tile};
  }
};

// A score is a sum of n products whose magnitudes add up to at most one, through two norms, times at most 2.
// The weights' slopes are at most 1.13, the softmax's rows change by twice as much in all; and weights are at
// most 2.
double bound_of(const Shape& s) {
  const double pixels = static_cast<double>(s.x[1] * s.x[2]), dim = static_cast<double>(s.dim());
  const double score = 2 * (2 * pixels + 8), slope = s.weights == ChannelWeights::softmax ? 2 : 1.13 * dim;
  return test::kEps * (slope * score + 2 * dim * (dim / 2 + 4));
}

void expect_equation(const Shape& s, Data& d, double magnitude = 1) {
  std::vector<double> want(static_cast<std::size_t>(d.out.count()));
  const View<double, 4> expected(want.data(), s.x);
  ref::channel_attention(d.exact(s, expected));
  for (CpuExec& exec : test::contexts()) {
    channel_attention(d.args(s), exec);
    SCOPED_TRACE(concat(to_string(s.x), ", heads ", s.heads, ", tile ", to_string(s.tile)));
    test::expect_close(d.out.view(), expected, [&](Index) { return magnitude * bound_of(s); });
    d.out.expect_padding_untouched();
  }
}

TEST(ChannelAttention, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Shape& s : kShapes) {
    Data d(s, rng);
    expect_equation(s, d);
  }
}

// Channels of q and k whose squares are no floats, some so small that 1e-12 takes the place of their norm,
// some zero; and values that grow over the image, so that parts are scaled differently.
TEST(ChannelAttention, TakesChannelsOfAnyMagnitude) {
  std::mt19937 rng(2);
  std::uniform_real_distribution<float> decades(-37, 37);
  for (const Shape& s : kShapes) {
    Data d(s, rng);
    for (Index c = 0; c < s.x[3]; ++c) {
      const float q = c % 7 == 3 ? 0.0f : std::pow(10.0f, decades(rng)), k = std::pow(10.0f, decades(rng));
      for (Index i = 0; i < s.x[0] * s.x[1] * s.x[2]; ++i) {
        const Index x = i % s.x[2], y = i / s.x[2] % s.x[1], n = i / s.x[2] / s.x[1];
        const float grow = c % 5 == 1 ? std::pow(10.0f, -static_cast<float>(y) / 3) : 1.0f;
        d.q.view()(n, y, x, c) *= q * grow;
        d.k.view()(n, y, x, c) *= c % 7 == 5 ? 1e-14f : k;
      }
    }
    expect_equation(s, d);
  }
}

TEST(ChannelAttention, DoesNotSeeTheScaleOfQueriesAndKeysNorTheOrderOfPixels) {
  std::mt19937 rng(3);
  const Shape s{{1, 6, 8, 20}, 4, ChannelWeights::relu};
  Data d(s, rng), turned(s, rng);
  const auto spread = [&](Array<4>& from, Array<4>& to, float scale) {
    for (Index y = 0; y < 6; ++y)
      for (Index x = 0; x < 8; ++x)
        for (Index c = 0; c < 20; ++c) to.view()(0, 5 - y, x, c) = scale * from.view()(0, y, x, c);
  };
  spread(d.q, turned.q, 4), spread(d.k, turned.k, 0.25), spread(d.v, turned.v, 1);
  CpuExec exec;
  channel_attention(d.args(s), exec);
  ChannelAttention a = turned.args(s);
  a.temperature = d.temperature.cview();
  channel_attention(a, exec);
  Array<4> back(s.x);
  spread(turned.out, back, 1);
  test::expect_close(back.view(), d.out.cview(), [&](Index) { return 2 * bound_of(s); });
}

TEST(ChannelAttention, TilesThatHoldTheImageAreNone) {
  std::mt19937 rng(4);
  Shape s{{1, 9, 14, 18}, 3, ChannelWeights::softmax};
  Data d(s, rng);
  CpuExec exec;
  Array<4> other(s.x);
  ChannelAttention a = d.args(s);
  channel_attention(a, exec);
  a.out = other.view(), a.tile = {9, 20};
  channel_attention(a, exec);
  test::expect_close(other.view(), d.out.cview(), [](Index) { return 0; });
}

// Thirds of one projection; the result in place of v; other images and threads change nothing.
TEST(ChannelAttention, WorksOnThirdsAndInPlaceAndDoesNotDependOnThreadsNorOtherImages) {
  std::mt19937 rng(5);
  for (Shape s : kShapes) {
    s.x[0] = 2;
    Data d(s, rng);
    CpuExec single({1}), three({3});
    Array<4> all({2, s.x[1], s.x[2], 3 * s.x[3]});
    const auto third = [&](Index i) { return all.view().slice(3, i * s.x[3], (i + 1) * s.x[3]); };
    Array<4>* parts[] = {&d.q, &d.k, &d.v};
    for (Index i = 0; i < 3; ++i)
      for (Index p = 0; p < d.q.count(); ++p) {
        const Index c = p % s.x[3], x = p / s.x[3] % s.x[2], y = p / s.x[3] / s.x[2] % s.x[1];
        const Index n = p / s.x[3] / s.x[2] / s.x[1];
        third(i)(n, y, x, c) = parts[i]->view()(n, y, x, c);
      }
    ChannelAttention a = d.args(s);
    channel_attention(a, single);
    const View<const float, 4> want = a.out;
    a.q = third(0), a.k = third(1), a.v = third(2), a.out = third(2);
    channel_attention(a, three);
    test::expect_close(third(2), want, [](Index) { return 0; });
    Array<4> alone(s.x);
    a = {d.q.cview(),           d.k.cview(), d.v.cview(), alone.view(),
         d.temperature.cview(), s.heads,     s.weights,   s.tile};
    for (Index n = 0; n < 2; ++n) {
      ChannelAttention one = a;
      one.q = a.q.slice(0, n, n + 1), one.k = a.k.slice(0, n, n + 1), one.v = a.v.slice(0, n, n + 1);
      one.out = a.out.slice(0, n, n + 1);
      channel_attention(one, three);
    }
    test::expect_close(alone.view(), want, [](Index) { return 0; });
  }
}

TEST(ChannelAttention, TakesNoImages) {
  CpuExec exec;
  const View<const float, 4> none(nullptr, {0, 5, 5, 6});
  channel_attention({none, none, none, View<float, 4>(nullptr, {0, 5, 5, 6}), {}, 2}, exec);
}

TEST(ChannelAttention, RefusesWhatDoesNotFit) {
  std::mt19937 rng(6);
  const Shape s{{1, 5, 6, 12}, 3, ChannelWeights::relu};
  Data d(s, rng);
  CpuExec exec;
  const auto sentence = [&](auto&& change) {
    ChannelAttention a = d.args(s);
    change(a);
    return test::refusal([&] { channel_attention(a, exec); });
  };
  EXPECT_EQ(sentence([](auto& a) { a.heads = 5; }), "channel_attention: 5 heads do not divide 12 channels");
  EXPECT_EQ(sentence([](auto& a) { a.heads = 0; }), "channel_attention: 0 heads do not divide 12 channels");
  EXPECT_EQ(sentence([](auto& a) { a.k = a.k.slice(1, 0, 4); }),
            "channel_attention: k has shape [1, 4, 6, 12], expected [1, 5, 6, 12]");
  EXPECT_EQ(sentence([](auto& a) { a.v = a.v.slice(3, 0, 9); }),
            "channel_attention: v has shape [1, 5, 6, 9], expected [1, 5, 6, 12]");
  EXPECT_EQ(sentence([](auto& a) { a.out = a.out.slice(2, 0, 5); }),
            "channel_attention: out has shape [1, 5, 5, 12], expected [1, 5, 6, 12]");
  EXPECT_EQ(sentence([](auto& a) { a.temperature = a.temperature.slice(0, 0, 2); }),
            "channel_attention: temperature has shape [2], expected [3]");
  EXPECT_EQ(sentence([](auto& a) {
              a.tile = {4, -1};
            }),
            "channel_attention: tiles of 4 x -1, expected no negative extent");
}

}  // namespace
}  // namespace ashlar
