// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/linear_mixers.hpp"

#include <cstring>

#include "ashlar/ref/linear_recurrence.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  Index tokens, key_heads, heads, dk, dv;
};

// Inputs as a mixer makes them: unit keys, log decays in (-gate, 0), beta in (0, 2).
struct Inputs {
  Inputs(const Shape& s, float gate, unsigned seed)
      : shape(s),
        q({s.tokens, s.key_heads, s.dk}),
        k({s.tokens, s.key_heads, s.dk}),
        v({s.tokens, s.heads, s.dv}),
        out({s.tokens, s.heads, s.dv}),
        g({s.tokens, s.heads}),
        beta({s.tokens, s.heads}) {
    std::mt19937 rng(seed);
    q.normal(rng), k.normal(rng), v.normal(rng);
    g.uniform(rng, -gate, 0), beta.uniform(rng, 0, 2);
    for (Index t = 0; t < s.tokens; ++t)
      for (Index h = 0; h < s.key_heads; ++h) {
        double norm = 1e-12;
        for (Index i = 0; i < s.dk; ++i) norm += k.view()(t, h, i) * k.view()(t, h, i);
        for (Index i = 0; i < s.dk; ++i) k.view()(t, h, i) /= static_cast<float>(std::sqrt(norm));
      }
  }
  LinearRecurrence args(bool decay, bool delta) {
    LinearRecurrence a{q.cview(), k.cview(), v.cview(), {}, {}, out.view()};
    if (decay) a.g = g.cview();
    if (delta) a.beta = beta.cview();
    return a;
  }
  Shape shape;
  Array<3> q, k, v, out;
  Array<2> g, beta;
};

RecurrentState random_state(const Shape& s, unsigned seed) {
  RecurrentState state(s.heads, s.dk, s.dv);
  Tensor<float, 3> values({s.heads, s.dk, s.dv});
  std::mt19937 rng(seed);
  for (Index i = 0; i < values.size(); ++i) values.data()[i] = std::normal_distribution<float>()(rng);
  state.import_from(values.view());
  return state;
}

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

const Shape kShapes[] = {{1, 1, 1, 1, 1},    {3, 1, 1, 8, 64},    {4, 2, 2, 16, 12},    {63, 2, 4, 24, 48},
                         {67, 1, 3, 67, 63}, {130, 2, 2, 7, 130}, {21, 1, 2, 128, 128}, {9, 1, 1, 1100, 5}};

TEST(LinearRecurrence, MatchesTheEquationsInEveryVariant) {
  for (const Shape& s : kShapes)
    for (const auto& with : {std::pair(true, true), {false, true}, {true, false}, {false, false}})
      for (const float gate : {0.5f, 20.0f, 90.0f}) {
        const bool decay = with.first, delta = with.second;
        SCOPED_TRACE(testing::Message()
                     << s.tokens << "x" << s.heads << "x" << s.dk << "x" << s.dv << " gate " << gate
                     << (decay ? " decay" : "") << (delta ? " delta" : ""));
        Inputs in(s, gate, 1);
        const RecurrentState start = random_state(s, 2);
        Tensor<double, 4> state({1, s.heads, s.dk, s.dv});
        {
          Tensor<float, 3> f({s.heads, s.dk, s.dv});
          start.export_to(f.view());
          for (Index i = 0; i < f.size(); ++i) state.data()[i] = static_cast<double>(f.data()[i]);
        }
        Tensor<double, 3> want({s.tokens, s.heads, s.dv});
        LinearRecurrenceArgs<double> exact{in.q.exact(), in.k.exact(), in.v.exact(), {}, {}, want.view()};
        if (decay) exact.g = in.g.exact();
        if (delta) exact.beta = in.beta.exact();
        ref::linear_recurrence(exact, state.view());
        // Rounding of sums of Dk products of S, each token anew, while the transition does not expand (|k| =
        // 1).
        const double magnitude = std::max(test::largest(want.view()), test::largest(state.view()));
        const double bound =
            test::kEps * magnitude * (8 + std::sqrt(double(s.dk)) + std::sqrt(double(s.tokens)));
        for (CpuExec& exec : test::contexts()) {
          in.out.poison();
          RecurrentState got = start;
          RecurrentState* pointer = &got;
          auto a = in.args(decay, delta);
          a.states = {&pointer, 1};
          linear_recurrence(a, exec);
          test::expect_close(in.out.view(), want.view(), [&](Index) { return bound; });
          in.out.expect_padding_untouched();
          Tensor<float, 3> values({s.heads, s.dk, s.dv});
          got.export_to(values.view());
          test::expect_close(values.view(), state.view()[0], [&](Index) { return bound; });
        }
      }
}

TEST(LinearRecurrence, StaysRightAtExtremeGates) {
  const Shape s{41, 1, 2, 16, 20};
  for (const float gate : {0.0f, -1e-12f, -20.0f, -90.0f, -1e30f, -INFINITY})
    for (const float beta : {0.0f, 1.0f, 2.0f}) {
      Inputs in(s, 1, 3);
      // Every third token has the extreme gate, and two neighbours have it once.
      for (Index t = 0; t < s.tokens; ++t)
        for (Index h = 0; h < s.heads; ++h) {
          if (t % 3 == 0 || t == 10) in.g.view()(t, h) = gate;
          in.beta.view()(t, h) = beta;
        }
      Tensor<double, 4> state({1, s.heads, s.dk, s.dv});
      Tensor<double, 3> want({s.tokens, s.heads, s.dv});
      ref::linear_recurrence<double>(
          {in.q.exact(), in.k.exact(), in.v.exact(), in.g.exact(), in.beta.exact(), want.view()},
          state.view());
      for (CpuExec& exec : test::contexts()) {
        in.out.poison();
        linear_recurrence(in.args(true, true), exec);
        const double bound = 16 * test::kEps * std::max(1.0, test::largest(want.view()));
        test::expect_close(in.out.view(), want.view(), [&](Index) { return bound; });
      }
    }
}

TEST(LinearRecurrence, PackedAndThreadedEqualsAlone) {
  const std::vector<Index> offsets = {0, 0, 5, 6, 6, 70, 131};
  const Shape s{131, 2, 4, 24, 100};
  Inputs in(s, 2, 4);
  CpuExec one({1}), three({3});
  std::vector<RecurrentState> alone, packed;
  for (unsigned n = 0; n + 1 < offsets.size(); ++n) packed.push_back(random_state(s, n));
  alone = packed;
  std::vector<RecurrentState*> pointers;
  for (auto& p : packed) pointers.push_back(&p);
  auto a = in.args(true, true);
  a.offsets = offsets, a.states = pointers;
  in.out.poison();
  linear_recurrence(a, three);

  Tensor<float, 3> out({s.tokens, s.heads, s.dv});
  for (std::size_t n = 0; n + 1 < offsets.size(); ++n) {
    auto b = in.args(true, true);
    const Index from = offsets[n], to = offsets[n + 1];
    for (auto* view : {&b.q, &b.k, &b.v}) *view = view->slice(0, from, to);
    b.g = b.g.slice(0, from, to), b.beta = b.beta.slice(0, from, to), b.out = out.view().slice(0, from, to);
    RecurrentState* pointer = &alone[n];
    b.states = {&pointer, 1};
    linear_recurrence(b, one);
    EXPECT_TRUE(same(alone[n].raw(), packed[n].raw())) << "state of sequence " << n;
  }
  test::expect_close(in.out.view(), out.view(), [](Index) { return 0; });
}

TEST(LinearRecurrence, AnySplitCarriesTheState) {
  const Shape s{40, 1, 2, 32, 64};
  Inputs in(s, 1, 5);
  CpuExec exec;
  RecurrentState whole = random_state(s, 6);
  const RecurrentState start = whole;
  RecurrentState* pointer = &whole;
  auto a = in.args(true, true);
  a.states = {&pointer, 1};
  linear_recurrence(a, exec);
  for (Index cut = 0; cut <= s.tokens; ++cut) {
    RecurrentState state = start;
    Tensor<float, 3> out({s.tokens, s.heads, s.dv});
    pointer = &state;
    for (const auto& [from, to] : {std::pair<Index, Index>(0, cut), {cut, s.tokens}}) {
      auto b = in.args(true, true);
      for (auto* view : {&b.q, &b.k, &b.v}) *view = view->slice(0, from, to);
      b.g = b.g.slice(0, from, to), b.beta = b.beta.slice(0, from, to), b.out = out.view().slice(0, from, to);
      b.states = {&pointer, 1};
      linear_recurrence(b, exec);
    }
    const double bound = 16 * test::kEps * test::largest(in.out.view());
    test::expect_close(out.view(), in.out.view(), [&](Index) { return bound; });
  }
}

TEST(LinearRecurrence, RecallsOrthonormalKeysPerfectly) {
  const Shape s{16, 1, 1, 16, 9};
  Inputs in(s, 1, 7);
  for (Index t = 0; t < 16; ++t)
    for (Index i = 0; i < 16; ++i) in.k.view()(t, 0, i) = i == t ? 1.0f : 0.0f;
  in.beta.each([](float& b) { b = 1; });
  RecurrentState state(1, 16, 9);
  RecurrentState* pointer = &state;
  auto a = in.args(false, true);
  a.states = {&pointer, 1};
  CpuExec exec;
  delta_rule(a, exec);
  Tensor<float, 3> values({1, 16, 9});
  state.export_to(values.view());
  for (Index t = 0; t < 16; ++t)
    for (Index j = 0; j < 9; ++j) EXPECT_EQ(values.view()(0, t, j), in.v.view()(t, 0, j));
}

TEST(LinearRecurrence, RefusesBadInput) {
  const Shape s{6, 2, 4, 8, 8};
  CpuExec exec;
  auto refusal = [&](auto change) {
    Inputs in(s, 1, 8);
    auto a = in.args(true, true);
    change(in, a);
    return test::refusal([&] { linear_recurrence(a, exec); });
  };
  EXPECT_EQ(refusal([](Inputs& in, LinearRecurrence&) { in.g.view()(3, 2) = 0.5f; }),
            "linear_recurrence: g[3, 2] is 0.500000, expected a log decay <= 0");
  EXPECT_EQ(refusal([](Inputs& in, LinearRecurrence&) { in.g.view()(5, 0) = NAN; }),
            "linear_recurrence: g[5, 0] is nan, expected a log decay <= 0");
  EXPECT_EQ(
      refusal([](Inputs&, LinearRecurrence& a) { a.v = a.v.slice(1, 0, 3), a.out = a.out.slice(1, 0, 3); }),
      "linear_recurrence: v has 3 heads, expected a multiple of the 2 of k");
  EXPECT_EQ(refusal([](Inputs&, LinearRecurrence& a) { a.q = a.q.slice(0, 0, 5); }),
            "linear_recurrence: q has shape [5, 2, 8], expected [6, 2, 8]");
  static const std::vector<Index> overrun = {0, 4, 7}, decreasing = {0, 4, 2, 6};
  EXPECT_EQ(refusal([](Inputs&, LinearRecurrence& a) { a.offsets = overrun; }),
            "linear_recurrence: offsets end at 7, expected 6 tokens");
  EXPECT_EQ(refusal([](Inputs&, LinearRecurrence& a) { a.offsets = decreasing; }),
            "linear_recurrence: offsets[2] is 2, less than the one before it, 4");
  static RecurrentState other(4, 8, 9);
  static RecurrentState* pointer = &other;
  EXPECT_EQ(refusal([](Inputs&, LinearRecurrence& a) {
              a.states = {&pointer, 1};
            }),
            "linear_recurrence: a state has shape [4, 8, 9], expected [4, 8, 8]");
}

}  // namespace
}  // namespace ashlar
