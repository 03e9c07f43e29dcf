// SPDX-License-Identifier: Apache-2.0
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

constexpr Index kKept = 4;

class EachRollback : public testing::TestWithParam<Architecture> {
 protected:
  // A cache of 13 tokens, 10 of them prefilled, that keeps updates, or one that never did.
  Cache begun(bool keeps) {
    Cache cache = model_->new_cache(40);
    prefill(*model_, random_ids(*model_, 10, 1), cache, exec_);
    if (keeps) cache.keep_updates(kKept);
    for (std::int32_t id : {3, 1, 4}) decode(*model_, id, cache, exec_);
    return cache;
  }
  // Both go on with the same tokens to the same logits, and are the same behind them.
  void expect_same(Cache& got, Cache& want) {
    EXPECT_EQ(got.position(), want.position());
    EXPECT_EQ(got.save(), want.save());
    for (std::int32_t id : {2, 7, 1, 8, 2, 8})
      ASSERT_EQ(decode(*model_, id, got, exec_), decode(*model_, id, want, exec_));
    EXPECT_EQ(got.save(), want.save());
  }

  CpuExec exec_;
  std::unique_ptr<Model> model_ = random_model(GetParam(), exec_);
};
INSTANTIATE_TEST_SUITE_P(Decoders, EachRollback,
                         testing::Values(kLlama, kOlmo3, kOlmoHybrid, kMamba2, kFlaMamba2, kRwkv6,
                                         kRwkv6Hybrid, kRwkv7, kQwen3Next, kQwen3_5, kQwen3_5Moe, kLfm2,
                                         kGemma2, kGemma3, kGptOss, kMiniMax, kKimiLinear, kDeltaNet,
                                         kDeltaNetSum, kGatedDeltaNet, kGatedDeltaNetBare, kGatedDeltaProduct,
                                         kGla, kKda, kHgrn, kHgrn2, kRetNet),
                         name_of);

TEST_P(EachRollback, OfDecodedTokensIsTheCacheBeforeThem) {
  const Cache start = begun(true), never = begun(false);
  for (Index wrong = 1; wrong <= kKept; ++wrong) {
    Cache cache = start, want = never;
    for (Index i = 0; i < wrong; ++i) decode(*model_, static_cast<std::int32_t>(20 + i), cache, exec_);
    EXPECT_EQ(cache.kept_tokens(), std::min(kKept, 3 + wrong));
    cache.rollback(wrong);
    EXPECT_EQ(cache.kept_tokens(), std::min(kKept, 3 + wrong) - wrong);
    expect_same(cache, want);
  }
}

TEST_P(EachRollback, OfPrefilledTokensIsTheCacheBeforeThem) {
  const Cache start = begun(true), never = begun(false);
  for (Index wrong = 1; wrong <= kKept; ++wrong) {
    Cache cache = start, want = never;
    prefill(*model_, random_ids(*model_, wrong, 2), cache, exec_);
    cache.rollback(wrong);
    expect_same(cache, want);
  }
}

// As speculative decoding goes: each draft is prefilled, and a part of it, or all, is taken back.
TEST_P(EachRollback, RoundAfterRoundOfDrafts) {
  Cache cache = begun(true);
  const Ids right = random_ids(*model_, 14, 3);
  std::vector<Cache> after{cache};  // the cache that decoded that many of the right tokens
  for (std::int32_t id : right) {
    after.push_back(after.back());
    decode(*model_, id, after.back(), exec_);
  }
  Index at = 0;
  for (Index accepted : {1, 0, 3, 2, 4, 1, 0, 3}) {
    // What is accepted was decoded, so that all caches went the same way; the rest is a draft that fails.
    for (Index i = 0; i < accepted; ++i) decode(*model_, right[static_cast<std::size_t>(at++)], cache, exec_);
    prefill(*model_, random_ids(*model_, kKept, 4), cache, exec_);
    EXPECT_EQ(cache.kept_tokens(), kKept);
    cache.rollback(kKept);
    ASSERT_EQ(cache.save(), after[static_cast<std::size_t>(at)].save()) << at;
  }
  expect_same(cache, after.back());
}

// A prefill runs its recurrence token by token as far as it is kept: a part of it can be taken back.
TEST_P(EachRollback, OfAPartOfAPrefillLeavesAboutTheRest) {
  for (Index length : {Index{3}, kKept, Index{9}})
    for (Index wrong = 1; wrong < std::min(kKept, length); ++wrong) {
      Cache cache = begun(true), want = begun(false);
      const Ids ids = random_ids(*model_, length, 5);
      prefill(*model_, ids, cache, exec_);
      cache.rollback(wrong);
      prefill(*model_, std::span(ids).first(ids.size() - static_cast<std::size_t>(wrong)), want, exec_);
      EXPECT_EQ(cache.position(), want.position());
      EXPECT_LT(error(decode(*model_, 6, cache, exec_), decode(*model_, 6, want, exec_)), 2e-5)
          << length << " " << wrong;
    }
}

TEST_P(EachRollback, InABatchIsOfEachCacheByItself) {
  Cache first = begun(true), second = model_->new_cache(40), plain = begun(false);
  second.keep_updates(2);
  prefill(*model_, random_ids(*model_, 1, 6), second, exec_);
  Cache one = first, two = second, three = plain;
  const Ids ids = random_ids(*model_, 9, 7);
  const std::vector<Index> offsets{0, 4, 6, 9};
  Cache* const caches[] = {&one, &two, &three};
  Logits logits(static_cast<std::size_t>(3 * model_->vocab_size()));
  model_->prefill(ids, offsets, caches, {logits.data(), {3, model_->vocab_size()}}, exec_);
  EXPECT_EQ(one.kept_tokens(), 4);
  EXPECT_EQ(two.kept_tokens(), 2);
  EXPECT_EQ(three.kept_tokens(), 0);
  one.rollback(4), two.rollback(2);
  expect_same(one, first);
  expect_same(two, second);
}

TEST_P(EachRollback, RefusesMoreThanIsKeptAndLeavesTheCache) {
  Cache cache = begun(true), plain = begun(false);
  const auto saved = cache.save();
  EXPECT_EQ(refusal([&] { cache.rollback(4); }), "rollback: 4 tokens were to be taken back, expected 0 to 3");
  EXPECT_EQ(refusal([&] { cache.rollback(-1); }),
            "rollback: -1 tokens were to be taken back, expected 0 to 3");
  EXPECT_EQ(refusal([&] { plain.rollback(1); }), "rollback: 1 tokens were to be taken back, expected 0 to 0");
  EXPECT_EQ(refusal([&] { cache.keep_updates(-1); }), "keep_updates: tokens is -1, expected 0 or more");
  EXPECT_EQ(cache.kept_tokens(), 3);
  EXPECT_EQ(cache.save(), saved);
  cache.rollback(0);
  cache.rollback(3);
  EXPECT_EQ(cache.position(), 10);
  expect_same(cache, [&]() -> Cache& {
    plain = model_->new_cache(40);
    prefill(*model_, random_ids(*model_, 10, 1), plain, exec_);
    return plain;
  }());
}

TEST_P(EachRollback, KeepingEndsAndBeginsAnew) {
  Cache cache = begun(true);
  const Index bytes = begun(false).bytes();
  Cache restored = cache;
  restored.restore(cache.save());
  EXPECT_EQ(restored.kept_tokens(), 0);
  decode(*model_, 9, restored, exec_);
  EXPECT_EQ(restored.kept_tokens(), 1);
  restored.rollback(1);
  Cache never = begun(false);
  expect_same(restored, never);

  cache.keep_updates(1000);  // more than fit
  EXPECT_EQ(cache.kept_tokens(), 0);
  EXPECT_GE(cache.bytes(), bytes);
  decode(*model_, 9, cache, exec_);
  cache.rollback(1);
  cache.keep_updates(0);
  EXPECT_EQ(cache.bytes(), bytes);
  decode(*model_, 9, cache, exec_);
  EXPECT_EQ(cache.kept_tokens(), 0);
}

}  // namespace
}  // namespace ashlar
