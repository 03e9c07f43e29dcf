// SPDX-License-Identifier: Apache-2.0
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

// Two ways through the same model differ in the order of sums: each of about 10 parts a layer, in a stream
// that norms keep at the size of its largest element, adds a few eps.
constexpr double kSameModel = 200 * kEps;

class EachModel : public testing::TestWithParam<Architecture> {
 protected:
  CpuExec exec_;
  std::unique_ptr<Model> model_ = random_model(GetParam(), exec_);
};
INSTANTIATE_TEST_SUITE_P(Decoders, EachModel,
                         testing::Values(kLlama, kOlmo3, kOlmoHybrid, kMamba2, kFlaMamba2, kRwkv6,
                                         kRwkv6Hybrid, kRwkv7, kQwen3Next, kQwen3_5, kQwen3_5Moe, kLfm2,
                                         kGemma2, kGemma3, kGptOss, kMiniMax, kKimiLinear, kDeltaNet,
                                         kDeltaNetSum, kGatedDeltaNet, kGatedDeltaNetBare, kGatedDeltaProduct,
                                         kGla, kKda, kHgrn, kHgrn2, kRetNet),
                         name_of);

TEST_P(EachModel, PrefillAndDecodeAreTheFullForwardForEverySplit) {
  const Ids ids = random_ids(*model_, 19, 1);
  const auto vocab = static_cast<std::size_t>(model_->vocab_size());
  const Logits want = full_forward(*model_, ids, exec_);
  for (std::size_t split = 1; split < ids.size(); ++split) {
    Cache cache = model_->new_cache(19);
    Logits got = prefill(*model_, std::span(ids).first(split), cache, exec_);
    for (std::size_t t = split;; ++t) {
      EXPECT_LE(error(got, std::span(want).subspan((t - 1) * vocab, vocab)), kSameModel)
          << split << ", " << t;
      if (t == ids.size()) break;
      got = decode(*model_, ids[t], cache, exec_);
    }
    EXPECT_EQ(cache.position(), 19);
  }
}

TEST_P(EachModel, APromptMayComeInParts) {
  const Ids ids = random_ids(*model_, 23, 2);
  Cache whole = model_->new_cache(30), parts = model_->new_cache(30);
  const Logits want = prefill(*model_, ids, whole, exec_);
  prefill(*model_, std::span(ids).first(4), parts, exec_);
  prefill(*model_, std::span(ids).subspan(4, 1), parts, exec_);
  EXPECT_LE(error(prefill(*model_, std::span(ids).subspan(5), parts, exec_), want), kSameModel);
}

TEST_P(EachModel, ASequenceInABatchIsBitEqualToItAlone) {
  const Index vocab = model_->vocab_size();
  const Ids a = random_ids(*model_, 9, 3), b = random_ids(*model_, 1, 4), c = random_ids(*model_, 14, 5);
  Ids all = a;
  all.insert(all.end(), b.begin(), b.end()), all.insert(all.end(), c.begin(), c.end());
  std::vector<Cache> together(3, model_->new_cache(20)), alone = together;
  Cache* const caches[] = {&together[0], &together[1], &together[2]};
  const std::vector<Index> starts{0, 9, 10, 24};
  Tensor<float, 2> logits({3, vocab});
  auto row = [&](Index n) { return Logits(logits.view().at(n), logits.view().at(n) + vocab); };

  model_->prefill(all, starts, caches, logits.view(), exec_);
  EXPECT_EQ(row(0), prefill(*model_, a, alone[0], exec_));
  EXPECT_EQ(row(1), prefill(*model_, b, alone[1], exec_));
  EXPECT_EQ(row(2), prefill(*model_, c, alone[2], exec_));
  for (std::int32_t step = 0; step < 3; ++step) {
    model_->decode(Ids{step, 7, 11}, caches, logits.view(), exec_);
    EXPECT_EQ(row(0), decode(*model_, step, alone[0], exec_));
    EXPECT_EQ(row(1), decode(*model_, 7, alone[1], exec_));
    EXPECT_EQ(row(2), decode(*model_, 11, alone[2], exec_));
  }
  for (std::size_t n = 0; n < 3; ++n) EXPECT_EQ(together[n].save(), alone[n].save());
}

TEST_P(EachModel, LastLogitsAreRowsOfAllLogits) {
  const Ids ids = random_ids(*model_, 11, 6);
  const auto vocab = static_cast<std::size_t>(model_->vocab_size());
  Cache cache = model_->new_cache(11);
  const Logits last = prefill(*model_, ids, cache, exec_), all = full_forward(*model_, ids, exec_);
  EXPECT_LE(error(last, std::span(all).last(vocab)), kSameModel);
}

TEST_P(EachModel, ThreadsAreBitEqual) {
  CpuExec one({1}), three({3});
  const Ids ids = random_ids(*model_, 40, 8);
  EXPECT_EQ(full_forward(*model_, ids, one), full_forward(*model_, ids, three));
  Cache a = model_->new_cache(48), b = model_->new_cache(48);
  EXPECT_EQ(prefill(*model_, ids, a, one), prefill(*model_, ids, b, three));
  for (std::int32_t id = 0; id < 4; ++id)
    EXPECT_EQ(decode(*model_, id, a, one), decode(*model_, id, b, three));
}

TEST_P(EachModel, BFloat16WeightsComeCloseToTheirOwnValuesInFloat) {
  // The same bf16 numbers, once kept as they are, once widened to f32 by the reader's caller.
  struct Widened : ModelParameters {
    using ModelParameters::ModelParameters;
    Parameter make(std::string_view name, std::span<const Index> shape) const override {
      const Parameter narrow = ModelParameters::make(name, shape);
      auto wide = std::make_shared<Tensor<float, 1>>(to_floats(narrow));
      return {wide->data(), DType::f32, narrow.shape, wide};
    }
  };
  const auto narrow = random_model(GetParam(), exec_, DType::bf16);
  const auto wide =
      load_decoder_lm(parse_json(GetParam().config, "config"), Widened(GetParam(), DType::bf16), exec_);
  const Ids ids = random_ids(*narrow, 12, 9);
  EXPECT_LE(error(full_forward(*narrow, ids, exec_), full_forward(*wide, ids, exec_)), kSameModel);
  EXPECT_LT(narrow->size().bytes, wide->size().bytes);
}

TEST_P(EachModel, RefusesWhatItCannotRunAndChangesNothing) {
  const Index vocab = model_->vocab_size();
  Cache cache = model_->new_cache(8), other = model_->new_cache(8);
  prefill(*model_, random_ids(*model_, 5, 10), cache, exec_);
  const auto before = cache.save();
  Tensor<float, 2> logits({2, vocab});
  Cache *const one[] = {&cache}, *const two[] = {&cache, &other}, *const same[] = {&cache, &cache};
  const auto single = logits.view().slice(0, 0, 1);
  auto prefill_of = [&](Ids ids, Offsets offsets, std::span<Cache* const> caches, View<float, 2> out) {
    return refusal([&] { model_->prefill(ids, offsets, caches, out, exec_); });
  };
  auto decode_of = [&](Ids ids, std::span<Cache* const> caches, View<float, 2> out) {
    return refusal([&] { model_->decode(ids, caches, out, exec_); });
  };
  const std::vector<Index> gap{0, 2, 2}, pair{0, 1, 2};

  EXPECT_EQ(prefill_of({}, {}, one, single),
            "prefill: the prompt of sequence 0 is empty, expected at least one token");
  EXPECT_EQ(prefill_of({1, 2}, gap, two, logits.view()),
            "prefill: the prompt of sequence 1 is empty, expected at least one token");
  EXPECT_EQ(prefill_of({1, static_cast<std::int32_t>(vocab)}, {}, one, single),
            concat("prefill: ids[1] is ", vocab, ", expected 0 to ", vocab - 1));
  EXPECT_EQ(decode_of({-1}, one, single), concat("decode: ids[0] is -1, expected 0 to ", vocab - 1));
  EXPECT_EQ(prefill_of({1, 2, 3, 4}, {}, one, single),
            "prefill: sequence 0 would have 9 tokens, expected at most 8, its cache's capacity");
  if (const Index limit = model_->max_positions(); limit != kNoPositionLimit) {
    EXPECT_EQ(prefill_of(Ids(65, 1), {}, {}, single),
              "prefill: sequence 0 would have 65 tokens, expected at most 64, the model's positions");
    EXPECT_EQ(refusal([&] { model_->new_cache(65); }), "new_cache: capacity is 65, expected 1 to 64 tokens");
  }
  EXPECT_EQ(prefill_of({1, 2}, pair, one, logits.view()),
            "prefill: 1 caches were given, expected one for each of 2 sequences");
  EXPECT_EQ(prefill_of({1, 2}, pair, same, logits.view()),
            "prefill: caches 0 and 1 are the same, expected one a sequence");
  EXPECT_EQ(decode_of({1, 2}, one, single),
            "decode: 2 ids and 1 caches were given, expected one id for each cache");
  EXPECT_EQ(decode_of({}, {}, single),
            "decode: 0 ids and 0 caches were given, expected one id for each cache");
  EXPECT_EQ(prefill_of({1, 2, 3}, {}, one, logits.view()),
            "prefill: logits has 2 rows, expected 1 for the last tokens or 3 for all");
  EXPECT_EQ(decode_of({1}, one, logits.view()),
            concat("decode: logits has shape [2, ", vocab, "], expected [1, ", vocab, "]"));
  EXPECT_EQ(prefill_of({1}, {}, one, single.slice(1, 0, 3)),
            concat("prefill: logits has shape [1, 3], expected [1, ", vocab, "]"));
  EXPECT_EQ(refusal([&] { model_->new_cache(0); }),
            concat("new_cache: capacity is 0, expected 1 to ", model_->max_positions(), " tokens"));
  EXPECT_EQ(cache.save(), before);
  EXPECT_EQ(other.position(), 0);
}

TEST(DecoderLm, RefusesACacheOfAnotherModel) {
  CpuExec exec;
  const auto llama = random_model(kLlama, exec), olmo = random_model(kOlmo3, exec);
  Cache cache = olmo->new_cache(8), none;
  EXPECT_EQ(refusal([&] { decode(*llama, 1, cache, exec); }), "decode: cache 0 was not made by this model");
  EXPECT_EQ(refusal([&] { decode(*llama, 1, none, exec); }), "decode: cache 0 was not made by this model");
}

TEST(DecoderLm, CountsWhatATokenReads) {
  CpuExec exec;
  // Untied: one row of the embedding is read, the head whole.
  const auto model = random_model(kOlmo3, exec);
  const auto& size = model->size();
  EXPECT_EQ(size.bytes, 4 * size.parameters);
  EXPECT_EQ(size.bytes - size.bytes_per_token, 4 * 66 * 48);
  const Index layer = 48 * 48 * 2 + 16 * 48 * 2 + 3 * 48 * 40;
  EXPECT_EQ(size.matmul_parameters, 3 * layer + 67 * 48);
  EXPECT_EQ(size.parameters, 3 * (layer + 48 + 16 + 2 * 48) + 48 + 2 * 67 * 48);
  // Tied: the embedding is the head.
  const auto tied = random_model(kLlama, exec);
  EXPECT_EQ(tied->size().bytes, tied->size().bytes_per_token);
}

}  // namespace
}  // namespace ashlar
