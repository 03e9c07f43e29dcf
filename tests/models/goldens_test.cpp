// SPDX-License-Identifier: Apache-2.0
// What transformers computed with the same weights; golden_check looks at the rest of these files.
#include "ashlar/io/huggingface.hpp"
#include "ashlar/io/safetensors.hpp"
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class Golden : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(HuggingFace, Golden,
                         testing::Values("llama", "olmo3", "olmo_hybrid", "qwen3_next", "qwen3_5", "lfm2",
                                         "minimax", "kimi_linear", "gemma2", "gemma3", "gpt_oss"));

TEST_P(Golden, LogitsAgree) {
  const std::string goldens = ASHLAR_GOLDENS;
  const HuggingFaceModel files = load_huggingface(concat(goldens, "/hf/", GetParam()));
  const SafetensorsFile golden(concat(goldens, "/hf-", GetParam(), ".safetensors"));
  CpuExec exec;
  const auto model = load_decoder_lm(files.config, *files.parameters, exec);
  const Parameter ids = golden.at("input.ids"), want = golden.at("output.logits");
  const Index batch = ids.shape[0], length = ids.shape[1], vocab = model->vocab_size();
  for (Index n = 0; n < batch; ++n) {
    const auto* first = static_cast<const std::int32_t*>(ids.data) + n * length;
    const Logits got = full_forward(*model, Ids(first, first + length), exec);
    const auto* expected = static_cast<const float*>(want.data) + n * length * vocab;
    EXPECT_LE(error(got, {expected, static_cast<std::size_t>(length * vocab)}), 1e-4);
  }
}

TEST(Golden, TheModelOutlivesTheParametersThatItWasReadFrom) {
  CpuExec exec;
  auto load = [&] {
    const HuggingFaceModel files =
        load_huggingface(std::string(ASHLAR_EXAMPLES) + "/models/shakespeare-hybrid");
    return load_decoder_lm(files.config, *files.parameters, exec);
  };
  const auto model = load();
  const SafetensorsFile golden(std::string(ASHLAR_GOLDENS) + "/shakespeare-hybrid.golden.safetensors");
  const Parameter ids = golden.at("input.ids"), want = golden.at("output.logits");
  const auto* first = static_cast<const std::int32_t*>(ids.data);
  const Logits got = full_forward(*model, Ids(first, first + ids.size()), exec);
  EXPECT_LE(error(got, {static_cast<const float*>(want.data), got.size()}), 1e-4);
}

}  // namespace
}  // namespace ashlar
