// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/softmax_attention.hpp"
#include "ashlar/ops/window_attention.hpp"
#include "ashlar/ops/window_bias.hpp"
#include "tests/ops/window_attention_support.hpp"

namespace ashlar {
namespace {

using test::Array;
using test::expect_same;
using test::WindowCall;
using test::WindowCase;

// from[n, y + down, x + right, :], cyclically.
Array<4> rolled(Array<4> from, Index down, Index right) {
  Array<4> to = from;
  const auto [images, height, width, channels] = from.view().shape;
  for (Index n = 0; n < images; ++n)
    for (Index y = 0; y < height; ++y)
      for (Index x = 0; x < width; ++x)
        std::copy_n(from.view().at(n, (y + down + height) % height, (x + right + width) % width), channels,
                    to.view().at(n, y, x));
  return to;
}

TEST(WindowAttention, ShiftedIsTheSameAsOfARolledImage) {
  WindowCase c{"shifted", 2, GroupMap::window({8, 12}, {4, 4}, {2, 1}), {}, 2, 6, 6};
  c.shift_mask = 0;
  WindowCall call(c);
  CpuExec exec;
  WindowAttention a = call.args();
  window_attention(a, exec);
  Array<4> q = rolled(call.q(), 2, 1), k = rolled(call.k(), 2, 1), v = rolled(call.v(), 2, 1), out = v;
  a.q = q.cview(), a.k = k.cview(), a.v = v.cview(), a.out = out.poison().view();
  a.map = GroupMap::window({8, 12}, {4, 4});
  window_attention(a, exec);
  Array<4> back = rolled(out, -2, -1);
  expect_same(call.out().cview(), back.cview());
}

// A mask changes only the groups at the lower and right border.
TEST(WindowAttention, MaskedOrNotIsTheSameInsideTheImage) {
  WindowCase c{"shifted", 1, GroupMap::window({12, 12}, {4, 4}, {2, 2}), {}, 2, 6, 6};
  WindowCall masked(c);
  c.shift_mask = 0;
  WindowCall plain(c);
  CpuExec exec;
  window_attention(masked.args(), exec), window_attention(plain.args(), exec);
  const auto inside = [](WindowCall& call) { return call.out().cview().slice(1, 2, 10).slice(2, 2, 10); };
  expect_same(inside(masked), inside(plain));
  EXPECT_NE(masked.out().cview()(0, 11, 5, 0), plain.out().cview()(0, 11, 5, 0));
}

TEST(WindowAttention, OfOneWindowIsSoftmaxAttentionOfAllTokens) {
  const WindowCase c{"whole", 1, GroupMap::window({6, 9}, {6, 9}), {}, 3, 8, 5, false, true, true};
  for (CpuExec& exec : test::contexts()) {
    WindowCall call(c);
    const WindowAttention a = call.args();
    window_attention(a, exec);
    const auto tokens = [](auto x, Index heads) {
      auto t = x[0].split(2, x.shape[3] / heads);  // [H, W, heads, D]
      return View<std::remove_pointer_t<decltype(t.data)>, 3>(
          t.data, {t.shape[0] * t.shape[1], heads, t.shape[3]}, {t.strides[1], t.strides[2], 1});
    };
    Tensor<float, 3> out({54, 3, 5});
    const KeyValue kv{tokens(a.k, 3), tokens(a.v, 3)};
    SoftmaxAttention whole{tokens(a.q, 3), {}, {&kv, 1}, out.view()};
    whole.score.bias = {a.bias.data, {1, 3, 54, 54}, {0, a.bias.strides[0], a.bias.strides[1], 1}};
    softmax_attention(whole, exec);
    test::expect_close(out.view(), tokens(a.out, 3), [&](Index) { return 2 * call.bound(); });
  }
}

TEST(WindowAttention, WithCosineScoresDoesNotSeeHowLongQueriesAndKeysAre) {
  WindowCase c{"cosine", 1, GroupMap::window({8, 8}, {4, 4}, {2, 2}), {}, 2, 30, 30};
  c.cosine = true;
  WindowCall call(c), other(c);
  other.q().each([](float& x) { x *= 3; });
  other.k().each([](float& x) { x *= 0.1f; });
  CpuExec exec;
  window_attention(call.args(), exec), window_attention(other.args(), exec);
  test::expect_close(other.out().view(), call.out().cview(), [&](Index) { return 2 * call.bound(); });
}

TEST(WindowAttention, OfAGridOfStrideOneIsGlobal) {
  EXPECT_EQ(GroupMap::grid({5, 7}, 1), GroupMap::global({5, 7}));
  const WindowCase grid{"grid", 2, GroupMap::grid({5, 7}, 1), {}, 2, 6, 6},
      window{"window", 2, GroupMap::window({5, 7}, {5, 7}), {}, 2, 6, 6};
  WindowCall a(grid), b(window);
  CpuExec exec;
  window_attention(a.args(), exec), window_attention(b.args(), exec);
  expect_same(a.out().cview(), b.out().cview());
}

TEST(WindowAttention, OfViewsInAnotherOrderGivesThemInThatOrder) {
  WindowCase c{"views", 3, GroupMap::grid({4, 6}, 2, 3), {}, 2, 6, 6};
  c.biased = false;
  WindowCall call(c), other(c);
  for (Array<4>* x : {&other.q(), &other.k(), &other.v()})
    for (Index y = 0; y < 4; ++y)
      for (Index z = 0; z < 6; ++z)
        std::swap_ranges(x->view().at(0, y, z), x->view().at(0, y, z) + 12, x->view().at(2, y, z));
  CpuExec exec;
  window_attention(call.args(), exec), window_attention(other.args(), exec);
  for (Index n = 0; n < 3; ++n)
    test::expect_close(other.out().cview()[n], call.out().cview()[2 - n],
                       [&](Index) { return 2 * call.bound(); });
}

// Without overlap, HAT's overlapping attention is window attention with its table in another order.
TEST(WindowAttention, OverlappingByNothingIsOfWindowsWithAnotherTable) {
  const GroupMap map = GroupMap::window({6, 9}, {3, 3});
  std::mt19937 rng(5);
  Array<2> table({25, 2}), permuted({25, 2});
  table.normal(rng);
  const auto plain = window_position_index({3, 3}), over = overlapping_position_index(3, 3);
  for (Index n = 0; n < 9; ++n)
    for (Index m = 0; m < 9; ++m)
      for (Index h = 0; h < 2; ++h)
        permuted.view()(over.view()(n, m), h) = table.view()(plain.view()(n, m), h);
  const auto a_bias = gather_window_bias(table.cview(), plain.view()),
             b_bias = gather_window_bias(permuted.cview(), over.view());
  WindowCall a({"windows", 1, map, {}, 2, 6, 6}),
      b({"overlapping", 1, map, GroupMap::overlapping({6, 9}, 3, 3), 2, 6, 6});
  WindowAttention x = a.args(), y = b.args();
  x.bias = queries_first(a_bias.view()), y.bias = queries_first(b_bias.view());
  CpuExec exec;
  window_attention(x, exec), window_attention(y, exec);
  expect_same(a.out().cview(), b.out().cview());
}

// As RGT runs it: the halves of one projection's channels in windows of two shapes, results in place of q.
TEST(WindowAttention, RunsRangesOfChannelsInPlace) {
  std::mt19937 rng(6);
  Array<4> projected({1, 7, 10, 3 * 24});
  projected.normal(rng);
  Array<4> before = projected;
  CpuExec exec;
  for (Index half = 0; half < 2; ++half) {
    const GroupMap map = half == 0 ? GroupMap::window({7, 10}, {2, 4}, {1, 2}, {4, 4})
                                   : GroupMap::window({7, 10}, {4, 2}, {2, 1}, {4, 4});
    const auto part = [&](auto x, Index third) {
      return x.slice(3, third * 24 + half * 12, third * 24 + half * 12 + 12);
    };
    Tensor<float, 4> out({1, 7, 10, 12});
    WindowAttention a{
        part(before.cview(), 0), part(before.cview(), 1), part(before.cview(), 2), out.view(), 2, map};
    window_attention(a, exec);
    a = {part(projected.cview(), 0),
         part(projected.cview(), 1),
         part(projected.cview(), 2),
         part(projected.view(), 0),
         2,
         map};
    window_attention(a, exec);
    expect_same(a.out, out.view());
  }
  expect_same(projected.cview().slice(3, 24, 72), before.cview().slice(3, 24, 72));
  projected.expect_padding_untouched();
}

}  // namespace
}  // namespace ashlar
