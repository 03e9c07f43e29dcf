// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/tiles.hpp"
#include "ashlar/ops/window_attention.hpp"
#include "ashlar/ops/window_bias.hpp"
#include "tests/ops/window_attention_support.hpp"

namespace ashlar {
namespace {

using test::Array;
using test::refusal;

TEST(WindowAttention, RefusesWhatDoesNotFit) {
  Array<4> x({2, 8, 12, 12}), narrow({2, 8, 12, 10}), small({2, 8, 11, 12});
  Array<1> three({3});
  Array<3> bias({2, 16, 15});
  CpuExec exec;
  const auto refused = [&](auto&& change) {
    x.poison();
    WindowAttention a{x.cview(), x.cview(), x.cview(), x.view(), 2, GroupMap::window({8, 12}, {4, 4})};
    change(a);
    const std::string sentence = refusal([&] { window_attention(a, exec); });
    EXPECT_TRUE(std::isnan(x.view()(0, 0, 0, 0))) << "something was written";
    return sentence;
  };
  EXPECT_EQ(refused([](auto& a) { a.map = {}; }), "window_attention: there is no map of the queries' groups");
  EXPECT_EQ(refused([](auto& a) { a.heads = 5; }),
            "window_attention: q has 12 channels, expected a multiple of 5 heads");
  EXPECT_EQ(refused([](auto& a) { a.heads = 0; }),
            "window_attention: q has 12 channels, expected a multiple of 0 heads");
  EXPECT_EQ(refused([&](auto& a) { a.v = narrow.cview(), a.heads = 3; }),
            "window_attention: v has 10 channels, expected a multiple of 3 heads");
  EXPECT_EQ(refused([](auto& a) {
              a.map = GroupMap::window({8, 8}, {4, 4});
            }),
            "window_attention: q has shape [2, 8, 12, 12], expected [2, 8, 8, 12]");
  EXPECT_EQ(refused([&](auto& a) { a.k = small.cview(); }),
            "window_attention: k has shape [2, 8, 11, 12], expected [2, 8, 12, 12]");
  EXPECT_EQ(refused([&](auto& a) { a.v = small.cview(); }),
            "window_attention: v has shape [2, 8, 11, 12], expected [2, 8, 12, 12]");
  EXPECT_EQ(refused([&](auto& a) { a.out = narrow.view(); }),
            "window_attention: out has shape [2, 8, 12, 10], expected [2, 8, 12, 12]");
  EXPECT_EQ(refused([](auto& a) {
              a.map = GroupMap::grid({8, 12}, 4, 3);
            }),
            "window_attention: q has 2 images, expected a multiple of 3 views");
  EXPECT_EQ(refused([](auto& a) {
              a.key_map = GroupMap::global({8, 12}, 2);
            }),
            "window_attention: key_map has 2 views, expected 1");
  EXPECT_EQ(refused([](auto& a) {
              a.key_map = GroupMap::global({8, 12});
            }),
            "window_attention: key_map has 1 groups, expected 6");
  EXPECT_EQ(
      refused([](auto& a) {
        a.map = GroupMap::window({8, 12}, {4, 4}, {2, 2}), a.key_map = GroupMap::overlapping({8, 12}, 4, 6);
      }),
      "window_attention: key_map differs from map, which is shifted and masked, expected the same map");
  EXPECT_EQ(refused([&](auto& a) { a.tau = three.cview(); }),
            "window_attention: tau has shape [3], expected [2]");
  EXPECT_EQ(refused([&](auto& a) { a.bias = bias.cview(); }),
            "window_attention: bias has shape [2, 16, 15], expected [2, 16, 16]");
  EXPECT_EQ(refused([](auto& a) { a.q.strides[3] = 2; }),
            "window_attention: q has stride 2 on its last axis, expected 1");
}

TEST(GroupMap, RefusesGroupsThatDoNotFit) {
  EXPECT_EQ(refusal([] {
              GroupMap::window({0, 4}, {4, 4});
            }),
            "GroupMap: the image is [0, 4], expected at least one row and one column");
  EXPECT_EQ(refusal([] {
              GroupMap::window({4, 4}, {4, 0});
            }),
            "GroupMap: a window has 0 rows or columns, expected at least 1");
  EXPECT_EQ(refusal([] {
              GroupMap::window({8, 8}, {4, 4}, {4, 0});
            }),
            "GroupMap: the shift is 4 in windows of 4, expected it in [0, window)");
  EXPECT_EQ(refusal([] {
              GroupMap::window({8, 8}, {4, 4}, {0, -1});
            }),
            "GroupMap: the shift is -1 in windows of 4, expected it in [0, window)");
  EXPECT_EQ(refusal([] {
              GroupMap::window({8, 8}, {4, 4}, {0, 0}, {6, 4});
            }),
            "GroupMap: pad_to is 6, expected a multiple of the window, 4");
  EXPECT_EQ(refusal([] {
              GroupMap::overlapping({8, 8}, 4, 7);
            }),
            "GroupMap: overlapping windows of 7 around windows of 4, expected the difference even and not "
            "negative");
  EXPECT_EQ(refusal([] {
              GroupMap::grid({8, 9}, 4);
            }),
            "GroupMap: the stride of a grid is 4 in an image of [8, 9], expected a divisor of both extents");
  EXPECT_EQ(refusal([] { GroupMap::global({8, 9}, 0); }), "GroupMap: there are 0 views, expected at least 1");
}

// Every token of an item is in one slot of one group.
TEST(GroupMap, CoversEveryTokenOnce) {
  for (const GroupMap& map : {GroupMap::window({8, 12}, {4, 4}), GroupMap::window({7, 11}, {3, 5}, {1, 2}),
                              GroupMap::grid({6, 9}, 3, 2), GroupMap::window({5, 9}, {2, 4}, {1, 3}, {4, 8}),
                              GroupMap::global({3, 4}, 3)}) {
    std::vector<int> seen(static_cast<std::size_t>(map.views() * map.image()[0] * map.image()[1]));
    for (Index g = 0; g < map.groups(); ++g)
      for (Index n = 0; n < map.slots(); ++n)
        if (map.at(g, n).inside()) ++seen[static_cast<std::size_t>(map.token(g, n))];
    for (const int times : seen) EXPECT_EQ(times, 1);
  }
}

TEST(WindowBias, IndexOfOverlappingWindowsReachesEveryRow) {
  for (const auto& [window, over] : {std::array<Index, 2>{4, 6}, {8, 10}, {3, 3}, {16, 24}}) {
    const Index rows = (window + over - 1) * (window + over - 1);
    std::vector<std::array<Index, 2>> offset(static_cast<std::size_t>(rows), {-1000, -1000});
    const auto index = overlapping_position_index(window, over);
    for (Index n = 0; n < window * window; ++n)
      for (Index m = 0; m < over * over; ++m) {
        const std::array<Index, 2> d{m / over - n / window, m % over - n % window};
        auto& mine = offset[static_cast<std::size_t>(index.view()(n, m))];
        EXPECT_TRUE(mine[0] == -1000 || mine == d) << "two distances share a row";
        mine = d;
      }
    for (const auto& d : offset) EXPECT_NE(d[0], -1000);
  }
}

TEST(WindowBias, RefusesWhatDoesNotFit) {
  EXPECT_EQ(refusal([] {
              window_position_index({0, 3});
            }),
            "window_position_index: the window is [0, 3], expected extents of at least 1");
  EXPECT_EQ(refusal([] {
              log_position_coordinates({1, 3});
            }),
            "log_position_coordinates: the window is [1, 3], expected extents of at least 2");
  Array<2> table({24, 2});
  EXPECT_EQ(refusal([&] {
              gather_window_bias(table.cview(), window_position_index({3, 3}).view());
            }),
            "gather_window_bias: the index has 24, the table 24 rows");
}

TEST(TileStarts, CoverTheSideWithTilesOfOneSize) {
  using Starts = std::vector<Index>;
  EXPECT_EQ(tile_starts(13, 8), (Starts{0, 5}));
  EXPECT_EQ(tile_starts(11, 8), (Starts{0, 3}));
  EXPECT_EQ(tile_starts(8, 8), (Starts{0}));
  EXPECT_EQ(tile_starts(5, 8), (Starts{0}));
  EXPECT_EQ(tile_starts(17, 7), (Starts{0, 5, 10}));
  EXPECT_EQ(tile_starts(100, 48), (Starts{0, 26, 52}));
  EXPECT_EQ(refusal([] { tile_starts(0, 8); }),
            "tile_starts: a side of 0 in tiles of 8, expected both at least 1");
}

}  // namespace
}  // namespace ashlar
