// SPDX-License-Identifier: Apache-2.0
// Caches that forget what no window sees, that keep 16 bits, and that share a pool of pages.
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

constexpr double kSameModel = 200 * kEps;

constexpr Index kKvHeads = 2, kHeadDim = 8;

std::span<const std::int32_t> part(const Ids& ids, Index begin, Index end) {
  return std::span(ids).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}
std::span<const float> row(const Model& model, const Logits& logits, Index t) {
  const std::size_t vocabulary = static_cast<std::size_t>(model.vocab_size());
  return std::span(logits).subspan(static_cast<std::size_t>(t) * vocabulary, vocabulary);
}

TEST(CacheOfWindows, ContinuesAsWithoutACache) {
  CpuExec exec;
  const auto model = random_model(kOlmo3Long, exec);
  const Ids ids = random_ids(*model, 200, 1);
  const Logits want = full_forward(*model, ids, exec);
  for (Index prompt : {1, 63, 64, 90}) {
    Cache cache = model->new_cache(300);
    prefill(*model, part(ids, 0, prompt), cache, exec);
    Index t = prompt;
    for (; t < 130; ++t)
      ASSERT_LE(error(decode(*model, ids[static_cast<std::size_t>(t)], cache, exec), row(*model, want, t)),
                kSameModel);
    for (Index n : {3, 1, 65}) {  // and prefills on top
      const Logits got = prefill(*model, part(ids, t, t + n), cache, exec);
      ASSERT_LE(error(got, row(*model, want, (t += n) - 1)), kSameModel) << t;
    }
  }
}

TEST(CacheOfWindows, KeepsAndSavesTheWindowsOnly) {
  CpuExec exec;
  const auto model = random_model(kOlmo3Long, exec);
  const Index position = 2 * kKvHeads * kHeadDim * 4;  // bytes, of one layer
  Cache cache = model->new_cache(300), smaller = model->new_cache(150);
  EXPECT_EQ(cache.bytes(), (300 + 2 * 64) * position);
  EXPECT_EQ(model->new_cache(40).bytes(), 3 * 40 * position);
  const Ids ids = random_ids(*model, 140, 2);
  prefill(*model, ids, cache, exec);
  const auto saved = cache.save();
  EXPECT_EQ(static_cast<Index>(saved.size()), 48 + (140 + 2 * 64) * position);
  prefill(*model, part(ids, 7, 100), smaller, exec);
  smaller.restore(saved);
  EXPECT_EQ(smaller.save(), saved);
  for (std::int32_t id : {4, 0, 9, 1})
    ASSERT_EQ(decode(*model, id, smaller, exec), decode(*model, id, cache, exec));
}

TEST(CacheOfWindows, TokensCanBeTakenBack) {
  CpuExec exec;
  const auto model = random_model(kOlmo3Long, exec);
  for (Index length : {3, 62, 64, 127, 150})
    for (Index wrong : {1, 3, 8}) {
      Cache cache = model->new_cache(300);
      prefill(*model, random_ids(*model, length, 3), cache, exec);
      Cache never = cache;
      cache.keep_updates(8);
      prefill(*model, random_ids(*model, wrong, 4), cache, exec);
      cache.rollback(wrong);
      ASSERT_EQ(cache.save(), never.save());
      for (Index i = 0; i < wrong; ++i) decode(*model, 5, cache, exec);
      EXPECT_EQ(cache.kept_tokens(), wrong);
      cache.rollback(wrong);
      ASSERT_EQ(cache.save(), never.save());
      ASSERT_EQ(decode(*model, 6, cache, exec), decode(*model, 6, never, exec));
      ASSERT_EQ(prefill(*model, random_ids(*model, 70, 5), cache, exec),
                prefill(*model, random_ids(*model, 70, 5), never, exec));
      ASSERT_EQ(cache.save(), never.save());
      EXPECT_EQ(cache.kept_tokens(), 8);
    }
}

class EachKind : public testing::TestWithParam<Architecture> {
 protected:
  CpuExec exec_;
  std::unique_ptr<Model> model_ = random_model(GetParam(), exec_);
};
INSTANTIATE_TEST_SUITE_P(Decoders, EachKind,
                         testing::Values(kLlama, kOlmo3, kOlmo3Long, kOlmoHybrid, kMamba2, kQwen3Next, kLfm2,
                                         kGemma2, kGemma3, kGptOss, kMiniMax, kKimiLinear, kGla),
                         name_of);

TEST_P(EachKind, SixteenBitsAreAboutTheSame) {
  const Ids ids = random_ids(*model_, 30, 2);
  Cache wide = model_->new_cache(40), narrow = model_->new_cache(40, DType::bf16);
  EXPECT_EQ(wide.kv_type(), DType::f32);
  if (narrow.kv_type() == DType::f32) {  // no keys and values
    EXPECT_EQ(narrow.bytes(), wide.bytes());
    return;
  }
  EXPECT_LT(narrow.bytes(), wide.bytes());
  // Rounding to 8 bits, relative 2^-9, in some of the layers; no token of these goes to other experts for it.
  EXPECT_LT(error(prefill(*model_, ids, narrow, exec_), prefill(*model_, ids, wide, exec_)), 0.02);
  for (std::int32_t id : {3, 1, 4}) {
    const double e = error(decode(*model_, id, narrow, exec_), decode(*model_, id, wide, exec_));
    EXPECT_LT(e, 0.02);
    EXPECT_GT(e, 0);
  }
  const auto saved = narrow.save();
  Cache restored = model_->new_cache(34, DType::bf16);
  restored.restore(saved);
  EXPECT_EQ(restored.save(), saved);
  EXPECT_EQ(decode(*model_, 5, restored, exec_), decode(*model_, 5, narrow, exec_));
  EXPECT_EQ(refusal([&] { wide.restore(saved); }),
            "saved cache: its keys and values have 16 bits, this cache keeps them as f32");
  Cache* const caches[] = {&wide, &narrow};
  const auto before = wide.save();
  Logits logits(static_cast<std::size_t>(2 * model_->vocab_size()));
  EXPECT_EQ(refusal([&] {
              model_->decode(Ids{1, 2}, caches, {logits.data(), {2, model_->vocab_size()}}, exec_);
            }),
            "decode: caches 0 and 1 keep keys and values as f32 and as bf16, expected one type");
  EXPECT_EQ(wide.save(), before);
  EXPECT_EQ(refusal([&] { model_->new_cache(5, DType::f16); }),
            "new_cache: keys and values were to be kept as f16, expected f32 or bf16");
}

TEST_P(EachKind, PagesAreTheContiguousCache) {
  for (DType type : {DType::f32, DType::bf16}) {
    const auto pages = model_->new_pages(3, 64, type);
    Cache paged = model_->new_cache(60, pages), plain = model_->new_cache(60, type);
    const Ids ids = random_ids(*model_, 20, 1);
    EXPECT_EQ(prefill(*model_, ids, paged, exec_), prefill(*model_, ids, plain, exec_));
    Cache fork = paged, other = plain;
    for (std::int32_t id : {3, 1, 4})
      ASSERT_EQ(decode(*model_, id, paged, exec_), decode(*model_, id, plain, exec_));
    for (std::int32_t id : {2, 7})
      ASSERT_EQ(decode(*model_, id, fork, exec_), decode(*model_, id, other, exec_));
    EXPECT_EQ(prefill(*model_, ids, fork, exec_), prefill(*model_, ids, other, exec_));
    EXPECT_EQ(paged.save(), plain.save());
    EXPECT_EQ(fork.save(), other.save());
    paged.restore(other.save());
    EXPECT_EQ(paged.save(), other.save());
    EXPECT_EQ(decode(*model_, 5, paged, exec_), decode(*model_, 5, other, exec_));
  }
}

TEST_P(EachKind, PagesThatAreNotThereAreRefused) {
  const auto pages = model_->new_pages(3, 8);
  Cache a = model_->new_cache(40, pages), b = model_->new_cache(40, pages);
  if (pages == Model::Pages(pages.size())) return;  // no keys and values
  prefill(*model_, random_ids(*model_, 10, 1), a, exec_);
  prefill(*model_, random_ids(*model_, 7, 2), b, exec_);
  const auto before = a.save(), other = b.save();
  Cache* const caches[] = {&b, &a};
  Logits logits(static_cast<std::size_t>(2 * model_->vocab_size()));
  const View<float, 2> to(logits.data(), {2, model_->vocab_size()});
  model_->decode(Ids{1, 2}, caches, to, exec_);
  const auto after = b.save();
  EXPECT_EQ(refusal([&] {
              model_->decode(Ids{1, 2}, caches, to, exec_);
            }),
            "KvPagePool: 1 more pages are needed, 0 of 3 are free");
  EXPECT_EQ(b.save(), after);
  EXPECT_NE(after, other);
  a = Cache();
  Cache* const alone[] = {&b};
  model_->decode(Ids{1}, alone, {logits.data(), {1, model_->vocab_size()}}, exec_);
  EXPECT_EQ(b.position(), 9);
}

TEST(CacheOfPages, OfAnotherModelIsRefused) {
  CpuExec exec;
  const auto olmo = random_model(kOlmo3, exec), llama = random_model(kLlama, exec);
  EXPECT_EQ(refusal([&] { olmo->new_cache(9, llama->new_pages(3)); }),
            "new_cache: there are pages for 2 layers, expected 3");
  auto pages = olmo->new_pages(3);
  pages[1] = llama->new_pages(3)[0];
  EXPECT_EQ(refusal([&] { olmo->new_cache(9, pages); }),
            "new_cache: the pages of layer 1 are not of its keys and values");
}

}  // namespace
}  // namespace ashlar
