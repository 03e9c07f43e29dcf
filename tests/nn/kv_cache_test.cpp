// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/kv_cache.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

TEST(KvCache, HoldsWhatWasAppended) {
  CpuExec exec;
  std::mt19937 rng(1);
  KvCache<CpuExec> cache(3, 5, 20);
  Array<3> k({17, 3, 5}), v({17, 3, 5});
  k.normal(rng), v.normal(rng);
  for (auto [begin, end] : {std::pair<Index, Index>{0, 1}, {1, 1}, {1, 12}, {12, 17}})
    cache.append(k.cview().slice(0, begin, end), v.cview().slice(0, begin, end), exec);
  ASSERT_EQ(cache.keys().shape, (std::array<Index, 3>{17, 3, 5}));
  for (Index t = 0; t < 17; ++t)
    for (Index h = 0; h < 3; ++h)
      for (Index i = 0; i < 5; ++i) {
        ASSERT_EQ(cache.keys()(t, h, i), k.view()(t, h, i));
        ASSERT_EQ(cache.values()(t, h, i), v.view()(t, h, i));
      }
  EXPECT_EQ(cache.keys().strides, (std::array<Index, 3>{5, 100, 1}));  // a head's rows are contiguous
}

TEST(KvCache, RefusesMoreThanItsCapacity) {
  CpuExec exec;
  KvCache<CpuExec> cache(1, 2, 3);
  Array<3> k({2, 1, 2});
  cache.append(k.cview(), k.cview(), exec);
  EXPECT_EQ(test::refusal([&] { cache.append(k.cview(), k.cview(), exec); }),
            "KvCache: position 4 is behind the capacity, 3");
  EXPECT_EQ(cache.length(), 2);
}

TEST(KvCache, SavesOnlyItsLength) {
  CpuExec exec;
  std::mt19937 rng(2);
  KvCache<CpuExec> cache(2, 4, 9), other(2, 4, 5);
  Array<3> k({5, 2, 4}), v({5, 2, 4});
  k.normal(rng), v.normal(rng);
  cache.append(k.cview(), v.cview(), exec);
  std::vector<float> saved(static_cast<std::size_t>(cache.elements(5)));
  EXPECT_EQ(saved.size(), 80u);
  cache.save(saved.data());
  other.restore(saved.data(), 5);
  EXPECT_EQ(other.length(), 5);
  for (Index t = 0; t < 5; ++t)
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 4; ++i) {
        ASSERT_EQ(other.keys()(t, h, i), k.view()(t, h, i));
        ASSERT_EQ(other.values()(t, h, i), v.view()(t, h, i));
      }
}

}  // namespace
}  // namespace ashlar
