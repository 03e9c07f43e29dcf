// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/window_attention.hpp"

#include "tests/ops/window_attention_support.hpp"

namespace ashlar {
namespace {

using test::WindowCall;
using test::WindowCase;

void expect_equation(const WindowCase& c) {
  SCOPED_TRACE(c.name);
  WindowCall call(c);
  const View<double, 4> want = call.want();
  for (CpuExec& exec : test::contexts()) call.expect_right(exec, want);
}

// Maps whose groups are few and many, whole and ragged.
std::vector<WindowCase> maps() {
  const auto windows = [](GroupMap::Size image, GroupMap::Size window, GroupMap::Size shift = {0, 0},
                          GroupMap::Size pad_to = {0, 0}) {
    return GroupMap::window(image, window, shift, pad_to);
  };
  const GroupMap side_by_side = windows({9, 13}, {4, 4});
  return {
      {"windows", 2, windows({8, 12}, {4, 4}), {}, 2, 6, 6},
      {"windows of one token", 1, windows({3, 2}, {1, 1}), {}, 2, 5, 3},
      {"ragged rectangles", 1, windows({7, 11}, {3, 5}), {}, 3, 7, 5},
      {"shifted", 2, windows({8, 12}, {4, 4}, {2, 2}), {}, 2, 6, 6},
      {"shifted along one axis", 1, windows({8, 6}, {4, 3}, {0, 1}), {}, 1, 4, 9},
      {"shifted, ragged", 1, windows({7, 10}, {3, 4}, {1, 2}), {}, 2, 8, 8},
      {"shifted, ragged, padded to a larger multiple",
       2,
       windows({5, 9}, {2, 4}, {1, 2}, {4, 4}),
       {},
       2,
       3,
       3},
      {"shifted, one window", 1, windows({4, 4}, {4, 4}, {2, 2}), {}, 2, 6, 6},
      {"a window larger than the image", 1, windows({3, 5}, {8, 8}, {4, 4}), {}, 2, 6, 6},
      {"more than 64 queries", 1, windows({10, 20}, {10, 10}, {5, 5}), {}, 2, 10, 10},
      {"overlapping", 2, windows({8, 12}, {4, 4}), GroupMap::overlapping({8, 12}, 4, 6), 2, 6, 6},
      {"overlapping, ragged", 1, side_by_side, GroupMap::overlapping({9, 13}, 4, 10), 2, 6, 4},
      {"grid", 2, GroupMap::grid({6, 9}, 3), {}, 2, 6, 6},
      {"grid of views", 6, GroupMap::grid({6, 9}, 3, 3), {}, 2, 6, 6},
      {"global", 2, GroupMap::global({5, 7}), {}, 2, 6, 6},
      {"global, many keys", 1, GroupMap::global({19, 31}), {}, 1, 6, 6},
      {"global views", 4, GroupMap::global({3, 5}, 2), {}, 2, 6, 6},
  };
}

TEST(WindowAttention, MatchesTheEquation) {
  for (const WindowCase& c : maps()) expect_equation(c);
}

TEST(WindowAttention, MatchesTheEquationWithEachScoreBiasAndMask) {
  for (WindowCase c : maps())
    for (const bool cosine : {false, true}) {
      c.cosine = cosine, c.biased = false, c.shift_mask = -200;
      expect_equation(c);
      c.biased = c.queries_first = true, c.shift_mask = 0, c.scale = cosine ? 0 : 0.3f;
      expect_equation(c);
    }
}

// Head sizes of published models, of which some are no multiple of any vector, in windows of theirs.
TEST(WindowAttention, MatchesTheEquationForHeadsOfEachSize) {
  const GroupMap eight = GroupMap::window({8, 16}, {8, 8}), seven = GroupMap::window({7, 14}, {7, 7}, {3, 3});
  for (const Index dim : {1, 2, 15, 16, 17, 30, 32, 46, 53, 77, 122}) {
    expect_equation({"8 x 8", 1, eight, {}, 2, dim, dim});
    expect_equation({"7 x 7, shifted", 1, seven, {}, 1, dim, dim + 3});
  }
  expect_equation({"16 x 16", 1, GroupMap::window({16, 32}, {16, 16}, {8, 8}), {}, 1, 30, 30});
  expect_equation({"16 x 16 in 24 x 24", 1, GroupMap::window({16, 32}, {16, 16}),
                   GroupMap::overlapping({16, 32}, 16, 24), 1, 30, 30});
  expect_equation({"8 x 32", 1, GroupMap::window({13, 40}, {8, 32}, {4, 16}, {32, 32}), {}, 1, 30, 30});
}

TEST(WindowAttention, OfNoImagesWritesNothing) {
  expect_equation({"no images", 0, GroupMap::window({8, 8}, {4, 4}), {}, 2, 6, 6});
}

// Scores of several hundred, and a temperature of 100.
TEST(WindowAttention, StaysFiniteWhereScoresAreLarge) {
  WindowCase c{"large", 1, GroupMap::window({8, 8}, {4, 4}, {2, 2}), {}, 2, 16, 16};
  c.scale = 40;
  expect_equation(c);
  WindowCall call(c);
  call.k().each([](float& x) { x = 1; });
  call.q().each([](float& x) { x = -1; });
  const auto want = call.want();
  for (CpuExec& exec : test::contexts()) call.expect_right(exec, want);
}

TEST(WindowAttention, OfQueriesOfZeroWithCosineScoresIsTheMeanOfTheValues) {
  WindowCase c{"zeros", 1, GroupMap::window({4, 4}, {4, 4}), {}, 1, 8, 8};
  c.cosine = true, c.biased = false;
  WindowCall call(c);
  call.q().each([](float& x) { x = 0; });
  const auto want = call.want();
  for (CpuExec& exec : test::contexts()) call.expect_right(exec, want);
}

TEST(WindowAttention, DoesNotDependOnThreadsOrBatchMates) {
  for (const WindowCase& c : maps()) {
    SCOPED_TRACE(c.name);
    WindowCall call(c);
    CpuExec single({1}), two({2}), three({3});
    WindowAttention a = call.args();
    window_attention(a, single);
    const test::Array<4> one = call.out();
    for (CpuExec* exec : {&two, &three}) {
      window_attention(call.args(), *exec);
      test::Array<4> want = one;
      test::expect_same(call.out().cview(), want.cview());
    }
    // The last item alone.
    test::Array<4> alone = one, want = one;
    alone.poison();
    const Index views = c.map.views(), first = c.images - views;
    a.q = a.q.slice(0, first, c.images), a.k = a.k.slice(0, first, c.images),
    a.v = a.v.slice(0, first, c.images);
    a.out = alone.view().slice(0, first, c.images);
    window_attention(a, three);
    test::expect_same(a.out, want.cview().slice(0, first, c.images));
  }
}

}  // namespace
}  // namespace ashlar
