// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/kv_cache.hpp"

#include "tests/nn/kv_support.hpp"

namespace ashlar {
namespace {

using namespace test;

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
  EXPECT_EQ(refusal([&] { cache.append(k.cview(), k.cview(), exec); }),
            "KvCache: position 4 is behind the capacity, 3");
  EXPECT_EQ(cache.length(), 2);
}

TEST(KvCache, SavesOnlyItsLength) {
  CpuExec exec;
  std::mt19937 rng(2);
  for (DType type : {DType::f32, DType::bf16}) {
    Cache cache(2, 4, 9, {.type = type}), other(2, 4, 5, {.type = type});
    Array<3> k({5, 2, 4}), v({5, 2, 4});
    k.normal(rng), v.normal(rng);
    cache.append(k.cview(), v.cview(), exec);
    EXPECT_EQ(cache.elements(5), 80);
    EXPECT_EQ(cache.saved_bytes(5), type == DType::f32 ? 320 : 160);
    other.restore(saved(cache).data(), 5);
    EXPECT_EQ(other.length(), 5);
    Array<3> got({5, 2, 4}), want({5, 2, 4});
    with_kv_type(type, [&](auto zero) {
      using T = decltype(zero);
      for (Index t = 0; t < 5; ++t)
        for (Index h = 0; h < 2; ++h)
          for (Index i = 0; i < 4; ++i) {
            ASSERT_EQ(float(other.keys<T>()(t, h, i)), float(T(k.view()(t, h, i))));
            ASSERT_EQ(float(other.values<T>()(t, h, i)), float(T(v.view()(t, h, i))));
          }
    });
    EXPECT_EQ(refusal([&] { other.restore(saved(cache).data(), 6); }),
              "KvCache: 6 positions were to be restored, the capacity is 5");
  }
}

TEST(KvCache, RefusesOtherTypesAndMixedBatches) {
  EXPECT_EQ(refusal([] { Cache(1, 2, 3, {.type = DType::f16}); }),
            "KvCache: keys and values were to be kept as f16, expected f32 or bf16");
  auto a = state_of(window_cache(0, 4)), b = state_of(window_cache(0, 4, DType::bf16));
  LayerState<CpuExec>* const states[] = {&a, &b};
  SequenceBatch<CpuExec> batch;
  batch.states = states;
  EXPECT_EQ(refusal([&] { kv_type(batch); }),
            "attention: caches of one batch keep keys and values as f32 and as bf16, expected one type");
}

// Of parts of a sequence: decoding, prefills that are shorter or longer than the rings, and both.
const std::vector<std::vector<Index>> kParts{{1},         {300},         {63, 1},  {64, 1, 1, 64, 3, 1},
                                             {7},         {130, 1, 200}, {200, 1}, {1, 65, 1, 1, 129, 2, 1},
                                             {40, 40, 1}, {1, 299}};

TEST(KvCache, ARingIsTheWholeCache) {
  CpuExec exec;
  Tokens x(300);
  for (Index window : {1, 5, 64, 65, 130, 1000}) {
    const Floats want = attend(x, window, exec);
    for (const auto& parts : kParts) {
      auto ring = state_of(window_cache(window, 300));
      EXPECT_LE(difference(attend_in_parts(x, parts, window, ring, exec), want), kSameAttention)
          << window << ", " << parts[0];
    }
  }
}

TEST(KvCache, AnElementOf16BitsIsTheRoundedOne) {
  CpuExec exec;
  Tokens x(300), rounded(300);
  rounded.round();
  for (Index window : {0, 5, 100}) {
    const Floats want = attend(rounded, window, exec);
    for (const auto& parts : kParts) {
      auto narrow = state_of(window_cache(window, 300, DType::bf16));
      EXPECT_LE(difference(attend_in_parts(x, parts, window, narrow, exec), want), kSameAttention)
          << window << ", " << parts[0];
    }
    // To what is not rounded: 2^-9 of keys moves scores of about 5, and with them and 2^-9 of values the
    // mean.
    const double off = difference(attend(x, window, exec), want);
    EXPECT_GT(off, 1e-4);
    EXPECT_LT(off, 0.1);
  }
}

TEST(KvCache, MemoryIsBoundedByTheWindow) {
  const Index row = 2 * (5 + 3) * 4;  // bytes
  for (Index capacity : {1000, 100000}) {
    EXPECT_EQ(window_cache(1, capacity).bytes(), 64 * row);
    EXPECT_EQ(window_cache(65, capacity).bytes(), 128 * row);
    EXPECT_EQ(window_cache(65, capacity, DType::bf16).bytes(), 64 * row);
    EXPECT_EQ(window_cache(0, capacity).bytes(), capacity * row);
  }
  EXPECT_EQ(window_cache(512, 20).bytes(), 20 * row);
  EXPECT_EQ(window_cache(Index{1} << 62, 20).bytes(), 20 * row);
  Cache kept = window_cache(65, 1000);
  kept.keep_updates(10);
  EXPECT_EQ(kept.bytes(), 192 * row);
  kept.keep_updates(100000);  // never more than the capacity, in whole blocks
  EXPECT_EQ(kept.bytes(), 1024 * row);
  kept.keep_updates(0);
  EXPECT_EQ(kept.bytes(), 128 * row);
}

TEST(KvCache, TokensOfARingCanBeTakenBack) {
  CpuExec exec;
  Tokens x(400), wrong(400, 2);
  for (DType type : {DType::f32, DType::bf16})
    for (Index window : {3, 64, 70})
      for (Index start : {0, 60, 64, 128, 200})
        for (Index n : {1, 4, 9, 64}) {
          Cache cache = window_cache(window, 400, type), never = cache;
          append(cache, x, 0, start, exec), append(never, x, 0, start, exec);
          cache.keep_updates(n);
          const auto before = saved(cache);
          ASSERT_EQ(before, saved(never));
          append(cache, wrong, 0, n / 2, exec), append(cache, wrong, n / 2, n, exec);
          ASSERT_GE(cache.kept_tokens(), n);
          cache.truncate(start);
          ASSERT_EQ(saved(cache), before) << window << " " << start << " " << n;
          // What comes then comes to the same: whole rings are overwritten.
          append(cache, x, start, 300, exec), append(never, x, start, 300, exec);
          ASSERT_EQ(saved(cache), saved(never));
          ASSERT_GE(cache.kept_tokens(), std::min<Index>(n, 300 - start));
          append(cache, wrong, 0, n, exec);
          cache.truncate(300);
          auto a = state_of(cache), b = state_of(never);
          ASSERT_EQ(saved(cache), saved(never));
          ASSERT_EQ(attend(x, 300, 1, window, &a, exec), attend(x, 300, 1, window, &b, exec));
          ASSERT_EQ(attend(x, 301, 9, window, &a, exec), attend(x, 301, 9, window, &b, exec));
        }
}

TEST(KvCache, RefusesToTakeBackWhatARingForgot) {
  CpuExec exec;
  Tokens x(100);
  Cache cache = window_cache(10, 200);
  append(cache, x, 0, 64, exec);
  EXPECT_EQ(cache.kept_tokens(), 64);  // nothing was forgotten
  append(cache, x, 64, 70, exec);
  EXPECT_EQ(cache.kept_tokens(), 0);
  const auto before = saved(cache);
  EXPECT_EQ(
      refusal([&] { cache.truncate(69); }),
      "KvCache: length 70 was to become 69, expected 70 to 70, before which all that queries see is there");
  EXPECT_EQ(saved(cache), before);
  cache.keep_updates(5);
  append(cache, x, 70, 73, exec);
  EXPECT_EQ(cache.kept_tokens(), 3);
  cache.truncate(70);
  EXPECT_EQ(saved(cache), before);
  Cache whole = window_cache(0, 200);
  append(whole, x, 0, 70, exec);
  whole.truncate(0);
  EXPECT_EQ(whole.length(), 0);
  EXPECT_EQ(refusal([&] { whole.truncate(1); }),
            "KvCache: length 0 was to become 1, expected 0 to 0, before which all that queries see is there");
}

TEST(KvCache, ARestoredRingContinues) {
  CpuExec exec;
  Tokens x(400);
  for (DType type : {DType::f32, DType::bf16})
    for (Index window : {3, 70})
      for (Index length : {0, 5, 64, 65, 129, 300}) {
        Cache cache = window_cache(window, 400, type), other = window_cache(window, 350, type);
        append(cache, x, 0, length, exec);
        append(other, x, 3, 200, exec);
        EXPECT_LE(cache.saved_bytes(length), (window == 3 ? 64 : 128) * kShape.heads * 8 * 4);
        other.keep_updates(7);
        other.restore(saved(cache).data(), length);
        EXPECT_EQ(other.length(), length);
        ASSERT_EQ(saved(other), saved(cache));
        auto a = state_of(cache), b = state_of(other);
        ASSERT_EQ(attend(x, length, 1, window, &a, exec), attend(x, length, 1, window, &b, exec));
        ASSERT_EQ(attend(x, length + 1, 40, window, &a, exec), attend(x, length + 1, 40, window, &b, exec));
        EXPECT_GE(b.kv.kept_tokens(), 7);
        b.kv.truncate(length + 41 - 7);
      }
}

}  // namespace
}  // namespace ashlar
