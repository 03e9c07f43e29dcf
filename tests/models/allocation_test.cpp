// SPDX-License-Identifier: Apache-2.0
#include "tests/count_allocations.hpp"
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

TEST(Allocations, AreCounted) {
  if (!kCountsAllocations) GTEST_SKIP() << "a sanitizer has its own malloc";
  const long before = allocations_so_far;
  void* volatile a = std::malloc(100);
  void* volatile b = operator new(100);
  Tensor<float, 1> c({16});
  EXPECT_EQ(allocations_so_far - before, 3);
  std::free(a);
  operator delete(b);
}

TEST(Allocations, SteadyStateDecodingMakesNone) {
  if (!kCountsAllocations) GTEST_SKIP() << "a sanitizer has its own malloc";
  for (const Architecture& a :
       {kLlama,      kOlmo3,      kOlmoHybrid,    kMamba2, kRwkv6,  kRwkv7,  kQwen3Next,
        kQwen3_5,    kQwen3_5Moe, kLfm2,          kGemma2, kGemma3, kGptOss, kMiniMax,
        kKimiLinear, kDeltaNet,   kGatedDeltaNet, kGla,    kHgrn,   kRetNet})
    for (DType dtype : {DType::f32, DType::bf16})
      for (int threads : {1, 2}) {
        CpuExec exec({threads});
        const auto model = random_model(a, exec, dtype);
        std::vector<Cache> caches(2, model->new_cache(64));
        Cache* const pointers[] = {&caches[0], &caches[1]};
        Tensor<float, 2> logits({2, model->vocab_size()});
        const Ids ids{1, 2};
        auto decode = [&] { model->decode(ids, pointers, logits.view(), exec); };
        decode(), decode();
        const long before = allocations_so_far;
        for (int token = 0; token < 20; ++token) decode();
        EXPECT_EQ(allocations_so_far - before, 0) << a.name << " " << name(dtype) << ", threads " << threads;

        for (Cache& cache : caches) cache.keep_updates(3);
        decode();
        const long keeping = allocations_so_far;
        for (int token = 0; token < 10; ++token) {
          decode(), decode();
          for (Cache& cache : caches) cache.rollback(1);
        }
        EXPECT_EQ(allocations_so_far - keeping, 0) << a.name << ", keeping updates, threads " << threads;
      }
}

TEST(Allocations, NorDoesDecodingWithRingsAnd16BitsAndPages) {
  if (!kCountsAllocations) GTEST_SKIP() << "a sanitizer has its own malloc";
  for (const Architecture& a : {kOlmo3Long, kKimiLinear})
    for (DType type : {DType::f32, DType::bf16})
      for (bool paged : {false, true}) {
        CpuExec exec({2});
        const auto model = random_model(a, exec);
        const Index capacity = model->max_positions();
        std::vector<Cache> caches;
        const auto pages = model->new_pages(100, 8, type);
        for (int i = 0; i < 2; ++i)
          caches.push_back(paged ? model->new_cache(capacity, pages) : model->new_cache(capacity, type));
        Cache* const pointers[] = {&caches[0], &caches[1]};
        Tensor<float, 2> logits({2, model->vocab_size()});
        const Ids ids{1, 2};
        auto decode = [&] { model->decode(ids, pointers, logits.view(), exec); };
        decode(), decode();
        const long before = allocations_so_far;
        while (caches[0].position() < std::min<Index>(capacity, 150)) decode();
        EXPECT_EQ(allocations_so_far - before, 0) << a.name << " " << name(type) << (paged ? ", paged" : "");
      }
}

}  // namespace
}  // namespace ashlar
