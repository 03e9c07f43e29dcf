// SPDX-License-Identifier: Apache-2.0
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class EachCache : public testing::TestWithParam<Architecture> {
 protected:
  EachCache() { prefill(*model_, random_ids(*model_, 13, 1), cache_, exec_); }

  CpuExec exec_;
  std::unique_ptr<Model> model_ = random_model(GetParam(), exec_);
  Cache cache_ = model_->new_cache(24);
};
INSTANTIATE_TEST_SUITE_P(Decoders, EachCache,
                         testing::Values(kLlama, kOlmo3, kOlmoHybrid, kFlaMamba2, kRwkv6, kRwkv6Hybrid,
                                         kRwkv7, kQwen3Next, kLfm2, kGemma2, kGemma3, kGptOss, kMiniMax,
                                         kKimiLinear, kDeltaNet, kGla, kHgrn, kHgrn2),
                         name_of);

TEST_P(EachCache, ACopyContinuesBitForBitAndByItself) {
  Cache copy = cache_;
  const Logits first = decode(*model_, 3, copy, exec_);
  decode(*model_, 5, copy, exec_);
  EXPECT_EQ(cache_.position(), 13);
  EXPECT_EQ(decode(*model_, 3, cache_, exec_), first);
}

TEST_P(EachCache, ARestoredOneContinuesBitForBit) {
  const auto saved = cache_.save();
  Cache larger = model_->new_cache(40), exact = model_->new_cache(13);
  prefill(*model_, random_ids(*model_, 30, 2), larger, exec_);  // what was there before is gone
  larger.restore(saved);
  exact.restore(saved);
  EXPECT_EQ(exact.position(), 13);
  EXPECT_EQ(exact.save(), saved);
  for (std::int32_t id : {4, 0, 9})
    EXPECT_EQ(decode(*model_, id, larger, exec_), decode(*model_, id, cache_, exec_));
  EXPECT_EQ(larger.save(), cache_.save());
}

TEST_P(EachCache, AnEmptyOneCanBeSaved) {
  Cache fresh = model_->new_cache(5);
  fresh.restore(model_->new_cache(9).save());
  EXPECT_EQ(fresh.position(), 0);
  Cache other = model_->new_cache(5);
  EXPECT_EQ(decode(*model_, 1, fresh, exec_), decode(*model_, 1, other, exec_));
}

TEST_P(EachCache, RefusesBytesThatItDidNotSave) {
  const auto saved = cache_.save();
  auto refused = [&](std::vector<std::byte> bytes) {
    const auto before = cache_.save();
    std::string sentence;
    try {
      cache_.restore(bytes);
      ADD_FAILURE() << "nothing was refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), "InvalidCache");
      sentence = e.what();
    }
    EXPECT_EQ(cache_.save(), before);
    return sentence;
  };
  auto changed = [&](std::size_t at) {
    auto bytes = saved;
    bytes[at] ^= std::byte{0x41};
    return bytes;
  };
  EXPECT_EQ(refused({}), "saved cache: 0 bytes are too few, expected a header of 48");
  EXPECT_EQ(refused(changed(0)), "saved cache: it does not begin as a saved cache does");
  EXPECT_EQ(refused(changed(8)), "saved cache: its version is 66, expected 3");
  EXPECT_EQ(refused(changed(16)), "saved cache: it is of a model with other shapes");
  EXPECT_EQ(refused(changed(24)),
            "saved cache: its keys and values have 97 bits, this cache keeps them as f32");
  EXPECT_EQ(refused(changed(32)), "saved cache: it holds 76 tokens, this cache has room for 24");
  EXPECT_EQ(refused(changed(39)).find("saved cache: it holds "), 0u);  // 2^62 tokens
  auto position = saved;
  position[32] = std::byte{12};                                          // fits, but the rest is of 13
  if (model_->new_cache(12).bytes() != model_->new_cache(13).bytes()) {  // one that grows with its tokens
    EXPECT_EQ(refused(position).find("saved cache: it has "), 0u);
  }
  EXPECT_EQ(refused(changed(40)).find("saved cache: it has "), 0u);
  auto cut = saved;
  cut.pop_back();
  EXPECT_EQ(refused(cut).find("saved cache: it has "), 0u);
  auto longer = saved;
  longer.push_back({});
  EXPECT_EQ(refused(longer).find("saved cache: it has "), 0u);
}

TEST_P(EachCache, RefusesWhatAnotherModelSaved) {
  for (const Architecture& a : {kLlama, kOlmo3, kOlmoHybrid}) {
    if (std::string_view(a.name) == GetParam().name) continue;
    Cache other = random_model(a, exec_)->new_cache(24);
    EXPECT_EQ(refusal([&] { other.restore(cache_.save()); }),
              "saved cache: it is of a model with other shapes");
  }
}

}  // namespace
}  // namespace ashlar
