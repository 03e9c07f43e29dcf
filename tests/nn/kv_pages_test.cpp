// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/kv_pages.hpp"

#include "tests/nn/kv_support.hpp"

namespace ashlar {
namespace {

using namespace test;

std::shared_ptr<Pool> pool_of(Index pages, Index page, DType type = DType::f32) {
  return std::make_shared<Pool>(kShape, pages, page, type);
}
const std::vector<std::vector<Index>> kParts{{1}, {150}, {63, 1}, {7}, {130, 1}, {1, 65, 1, 1, 2, 1}};

TEST(KvPages, APagedCacheIsTheContiguousOne) {
  CpuExec exec;
  Tokens x(150);
  for (DType type : {DType::f32, DType::bf16})
    for (Index page : {1, 5, 16, 64, 200})
      for (const auto& parts : kParts) {
        const auto pool = pool_of(2 * (150 / page + 1) + 3, page, type);
        // Another sequence in between, so that pages do not follow one another.
        auto mine = state_of(Cache(pool, 150)), other = state_of(Cache(pool, 150)),
             whole = state_of(window_cache(0, 150, type));
        Tokens y(150, 2);
        for (Index t = 0, i = 0; t < 150; ++i) {
          const Index n = std::min(parts[std::min<std::size_t>(i, parts.size() - 1)], 150 - t);
          const Floats got = attend(x, t, n, 0, &mine, exec), want = attend(x, t, n, 0, &whole, exec);
          if (page >= 64)
            ASSERT_EQ(got, want) << page;  // blocks of keys lie alike
          else
            ASSERT_LE(difference(got, want), kSameAttention) << page;
          append(other.kv, y, t, t + n, exec);
          t += n;
        }
        EXPECT_EQ(saved(mine.kv), saved(whole.kv));
        EXPECT_EQ(pool->pages() - pool->free_pages(), 2 * ((150 + page - 1) / page));
      }
}

TEST(KvPages, AWindowGivesPagesBack) {
  CpuExec exec;
  Tokens x(300);
  for (Index window : {5, 64, 100})
    for (Index page : {16, 64, 7})
      for (const auto& parts : kParts) {
        const Index remembered = (window + 63) / 64 * 64, most = (remembered + page - 1) / page + 1;
        const auto pool = pool_of(2 * most + 1, page);
        auto paged = state_of(Cache(pool, 300, window)), ring = state_of(window_cache(window, 300));
        EXPECT_LE(difference(attend_in_parts(x, parts, window, paged, exec), attend(x, window, exec)),
                  kSameAttention)
            << window << " " << page << " " << parts[0];
        attend_in_parts(x, parts, window, ring, exec);
        EXPECT_LE(pool->pages() - pool->free_pages(), most);
        EXPECT_EQ(saved(paged.kv), saved(ring.kv));
        EXPECT_EQ(paged.kv.bytes(), (pool->pages() - pool->free_pages()) * page * 64);
      }
}

TEST(KvPages, PagesComeBackWithTheirSequence) {
  CpuExec exec;
  Tokens x(40);
  const auto pool = pool_of(10, 4);
  {
    Cache a(pool, 40), b(pool, 40);
    append(a, x, 0, 17, exec), append(b, x, 0, 4, exec);
    EXPECT_EQ(pool->free_pages(), 4);
    a.truncate(13);
    EXPECT_EQ(pool->free_pages(), 5);
    a.truncate(12);
    EXPECT_EQ(pool->free_pages(), 6);
    a = std::move(b);
    EXPECT_EQ(pool->free_pages(), 9);
    a.truncate(0);
    EXPECT_EQ(pool->free_pages(), 10);
  }
  EXPECT_EQ(pool->free_pages(), 10);
}

TEST(KvPages, ACopySharesPagesUntilOneWrites) {
  CpuExec exec;
  Tokens x(40), y(40, 2);
  const auto pool = pool_of(10, 4);
  Cache a(pool, 40), plain = window_cache(0, 40), other = plain;
  append(a, x, 0, 10, exec), append(plain, x, 0, 10, exec), append(other, x, 0, 10, exec);
  Cache b = a;
  EXPECT_EQ(pool->free_pages(), 7);
  append(b, y, 10, 11, exec), append(other, y, 10, 11, exec);
  EXPECT_EQ(pool->free_pages(), 6);  // the page that both were in
  append(a, x, 10, 13, exec), append(plain, x, 10, 13, exec);
  EXPECT_EQ(saved(a), saved(plain));
  EXPECT_EQ(saved(b), saved(other));
  b.truncate(6), other.truncate(6);  // into what is still shared
  EXPECT_EQ(pool->free_pages(), 6);
  append(b, y, 0, 1, exec), append(other, y, 0, 1, exec);
  EXPECT_EQ(pool->free_pages(), 5);
  EXPECT_EQ(saved(a), saved(plain));
  EXPECT_EQ(saved(b), saved(other));
  { const Cache c = b, d = c; }
  b = Cache(pool, 40);
  EXPECT_EQ(pool->free_pages(), 6);
  EXPECT_EQ(saved(a), saved(plain));
}

TEST(KvPages, AnExhaustedPoolRefusesAndNothingIsWritten) {
  CpuExec exec;
  Tokens x(40);
  const auto pool = pool_of(5, 4);
  auto a = state_of(Cache(pool, 40)), b = state_of(Cache(pool, 40));
  append(a.kv, x, 0, 6, exec), append(b.kv, x, 0, 3, exec);
  const auto before = saved(a.kv), other = saved(b.kv);
  EXPECT_EQ(refusal([&] { append(a.kv, x, 6, 17, exec); }),
            "KvPagePool: 3 more pages are needed, 2 of 5 are free");
  EXPECT_EQ(pool->free_pages(), 2);
  EXPECT_EQ(saved(a.kv), before);
  // Each fits, both do not: neither is written.
  LayerState<CpuExec>* const states[] = {&a, &b};
  const std::vector<Index> starts{0, 10, 15};
  SequenceBatch<CpuExec> batch;
  batch.offsets = starts, batch.states = states;
  EXPECT_EQ(refusal([&] {
              BatchKeyValues<CpuExec, float>(batch, x.k.cview().slice(0, 0, 15), x.v.cview().slice(0, 0, 15),
                                             0, exec);
            }),
            "KvPagePool: 1 more pages are needed, 0 of 5 are free");
  EXPECT_EQ(pool->free_pages(), 2);
  EXPECT_EQ(saved(a.kv), before);
  EXPECT_EQ(saved(b.kv), other);
  append(a.kv, x, 6, 16, exec);
  EXPECT_EQ(pool->free_pages(), 0);
  const Cache fork = a.kv;
  a.kv.truncate(15);
  EXPECT_EQ(refusal([&] { append(a.kv, x, 0, 1, exec); }),
            "KvPagePool: 1 more pages are needed, 0 of 5 are free");  // for a copy of the shared page
  EXPECT_EQ(refusal([&] { append(b.kv, x, 0, 38, exec); }),
            "KvCache: position 41 is behind the capacity, 40");
  EXPECT_EQ(refusal([] { pool_of(3, 0); }),
            "KvPagePool: 3 pages of 0 positions, expected pages of 1 or more");
  EXPECT_EQ(refusal([] { pool_of(3, 4, DType::f16); }),
            "KvPagePool: keys and values were to be kept as f16, expected f32 or bf16");
}

TEST(KvPages, SavedOnesAreTheContiguousOnes) {
  CpuExec exec;
  Tokens x(200);
  for (Index window : {0, 20}) {
    const auto pool = pool_of(20, 16);
    Cache paged(pool, 200, window), plain = window_cache(window, 200);
    append(plain, x, 0, 150, exec);
    append(paged, x, 50, 90, exec);
    const auto before = saved(paged);
    if (window == 0) {
      Cache taken(pool, 200);
      append(taken, x, 0, 12 * 16, exec);
      EXPECT_EQ(refusal([&] { paged.restore(saved(plain).data(), 150); }),
                "KvPagePool: 7 more pages are needed, 5 of 20 are free");
      EXPECT_EQ(saved(paged), before);
    }
    paged.restore(saved(plain).data(), 150);
    EXPECT_EQ(saved(paged), saved(plain));
    auto a = state_of(paged), b = state_of(plain);
    EXPECT_LE(difference(attend(x, 150, 1, window, &a, exec), attend(x, 150, 1, window, &b, exec)),
              kSameAttention);
    EXPECT_EQ(saved(a.kv), saved(b.kv));
    EXPECT_EQ(pool->pages() - pool->free_pages(), window == 0 ? 11 : 6);
  }
}

TEST(KvPages, TokensOfAWindowCanBeTakenBack) {
  CpuExec exec;
  Tokens x(300), wrong(300, 2);
  const auto pool = pool_of(40, 8);
  Cache paged(pool, 300, 20), plain = window_cache(20, 300);
  append(paged, x, 0, 150, exec), append(plain, x, 0, 150, exec);
  paged.keep_updates(20);
  append(paged, wrong, 0, 20, exec);
  EXPECT_EQ(paged.kept_tokens(), 20);
  paged.truncate(150);
  EXPECT_EQ(saved(paged), saved(plain));
  append(paged, x, 150, 170, exec), append(plain, x, 150, 170, exec);
  EXPECT_EQ(saved(paged), saved(plain));
}

}  // namespace
}  // namespace ashlar
