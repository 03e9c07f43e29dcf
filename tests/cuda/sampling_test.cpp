// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/sampling.hpp"

#include <limits>
#include <vector>

#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using test::Both;

class CudaSampling : public test::CudaTest {};

constexpr float kInf = std::numeric_limits<float>::infinity();
using Ids = std::vector<std::int32_t>;
using Histories = std::vector<std::span<const std::int32_t>>;

// What the CPU's samplers draw, several times over; the device's streams must be where theirs are.
void expect_the_cpus_ids(const Both<float, 2>& logits, const std::vector<SamplingOptions>& options,
                         const Ids& history, CudaExec& exec, int times = 6) {
  CpuExec cpu({.threads = 1});
  const auto [rows, vocabulary] = logits.host().shape;
  std::vector<Sampler> samplers;
  for (Index n = 0; n < rows; ++n) {
    SamplingOptions o = options[static_cast<std::size_t>(n) % options.size()];
    o.seed = static_cast<std::uint64_t>(n);
    samplers.emplace_back(o, vocabulary);
  }
  std::vector<Sampler> on_device = samplers;
  const auto count = static_cast<std::size_t>(rows);
  const Histories histories(count, history);
  for (int i = 0; i < times; ++i) {
    Ids want(count), got(count, -1);
    sample({logits.host(), samplers, histories, want}, cpu);
    sample({logits.device(), on_device, histories, got}, exec);
    for (std::size_t n = 0; n < count; ++n) {
      const SamplingOptions& o = samplers[n].options();
      ASSERT_EQ(got[n], want[n]) << "V " << vocabulary << " row " << n << " draw " << i << " temperature "
                                 << o.temperature << " top_k " << o.top_k << " top_p " << o.top_p << " min_p "
                                 << o.min_p << " penalty " << o.repetition_penalty;
      ASSERT_EQ(on_device[n].drawn(), samplers[n].drawn());
    }
  }
}

// Each filter alone, and together.
std::vector<SamplingOptions> options_of(Index vocabulary) {
  std::vector<SamplingOptions> all;
  for (float temperature : {0.0f, 0.7f, 3.0f})
    for (Index top_k : {Index{0}, Index{1}, Index{40}, vocabulary / 2, vocabulary + 3})
      for (float top_p : {1.0f, 0.95f, 0.3f})
        for (float min_p : {0.0f, 0.02f})
          for (float penalty : {1.0f, 1.3f})
            all.push_back({.temperature = temperature,
                           .top_k = top_k,
                           .top_p = top_p,
                           .min_p = min_p,
                           .repetition_penalty = penalty});
  return all;
}

TEST_F(CudaSampling, DrawsTheCpusTokens) {
  CudaExec exec;
  for (Index vocabulary : {1, 2, 31, 257, 1000, 5003, 100352}) {
    const auto options = options_of(vocabulary);
    const auto rows = static_cast<Index>(options.size());
    Ids history{0, 0, static_cast<std::int32_t>(vocabulary - 1), static_cast<std::int32_t>(vocabulary / 3)};
    const auto logits = Both<float, 2>::random({rows, vocabulary}, 1, -8, 8, 5);
    expect_the_cpus_ids(logits, options, history, exec, vocabulary > 10000 ? 2 : 6);
  }
}

// A row is gone over by one block or by several, by how many rows there are.
TEST_F(CudaSampling, ARowsTokensDependOnItAlone) {
  CudaExec exec;
  constexpr Index kRows = 70, kVocabulary = 18000;
  const auto logits = Both<float, 2>::random({kRows, kVocabulary}, 7, -8, 8);
  std::vector<Sampler> samplers;
  for (Index n = 0; n < kRows; ++n)
    samplers.emplace_back(
        SamplingOptions{.temperature = 0.9f, .top_k = n * 50, .top_p = n % 3 == 0 ? 1 : 0.9f}, kVocabulary);
  std::vector<Sampler> again = samplers;
  Ids all(kRows), some(kRows);
  sample({logits.device(), samplers, {}, all}, exec);
  for (Index first = 0, rows = 1; first < kRows; first += rows, rows = std::min(2 * rows, kRows - first)) {
    const auto at = static_cast<std::size_t>(first), n = static_cast<std::size_t>(rows);
    sample({logits.device().slice(0, first, first + rows),
            std::span(again).subspan(at, n),
            {},
            std::span(some).subspan(at, n)},
           exec);
  }
  EXPECT_EQ(all, some);
}

TEST_F(CudaSampling, OfEqualLogitsTheLowerIdComesFirst) {
  CudaExec exec;
  for (Index vocabulary : {40, 3000, 20001}) {
    auto logits = Both<float, 2>::random({7, vocabulary}, 2, -3, 3);
    for (Index i = 0; i < vocabulary; ++i) {
      for (Index n = 0; n < 5; ++n) logits.host()(n, i) = std::round(logits.host()(n, i));
      logits.host()(5, i) = 0.25f;
      logits.host()(6, i) = i % 2 == 0 ? 0.0f : -0.0f;
    }
    logits.upload();
    for (const SamplingOptions& o :
         {SamplingOptions{}, SamplingOptions{.temperature = 1},
          SamplingOptions{.temperature = 1, .top_k = 17}, SamplingOptions{.temperature = 1, .top_p = 0.77f}})
      expect_the_cpus_ids(logits, {o}, {}, exec);
  }
}

TEST_F(CudaSampling, MaskedAndExtremeLogits) {
  CudaExec exec;
  auto logits = Both<float, 2>::random({6, 600}, 3, -2, 2);
  for (Index i = 0; i < 600; ++i) {
    if (i % 3 != 0) logits.host()(0, i) = -kInf;
    if (i != 411) logits.host()(1, i) = -kInf;
    logits.host()(2, i) *= 1e38f;
    logits.host()(3, i) *= 1e-38f;
    logits.host()(4, i) -= 3e4f;
    logits.host()(5, i) = i < 2 ? 3.4e38f : -3.4e38f;
  }
  logits.upload();
  for (float temperature : {1e-30f, 0.5f, 1e30f})
    for (Index top_k : {0, 5, 300})
      for (float top_p : {1.0f, 0.9f})
        expect_the_cpus_ids(logits, {{.temperature = temperature, .top_k = top_k, .top_p = top_p}}, {}, exec);
}

// A long history, and one of ids twice over.
TEST_F(CudaSampling, PenalisesEachIdOfTheHistoryOnce) {
  CudaExec exec;
  Ids history;
  for (std::int32_t i = 0; i < 5000; ++i) history.push_back(i * 7 % 900);
  for (Index vocabulary : {1000, 10000}) {  // a row a block, and several
    const auto logits = Both<float, 2>::random({4, vocabulary}, 4, -8, 8);
    for (float penalty : {0.5f, 1.2f, 30.0f})
      expect_the_cpus_ids(logits,
                          {{.repetition_penalty = penalty},
                           {.temperature = 0.9f, .repetition_penalty = penalty},
                           {.temperature = 0.9f}},
                          history, exec);
  }
}

TEST_F(CudaSampling, RefusesAllRowsOrNone) {
  CudaExec exec;
  CpuExec cpu({.threads = 1});
  for (float temperature : {0.0f, 1.0f})
    for (float bad : {std::nanf(""), -std::nanf(""), kInf, -kInf}) {
      auto logits = Both<float, 2>::random({3, 500}, 5);
      for (Index i : {17, 400}) logits.host()(1, i) = bad;
      if (bad == -kInf)
        for (Index i = 0; i < 500; ++i) logits.host()(1, i) = bad;
      logits.upload();
      std::vector<Sampler> samplers(3, Sampler(SamplingOptions{.temperature = temperature}, 500));
      Ids ids(3, -7);
      auto why = [&](auto& e, View<const float, 2> x) {
        try {
          sample({x, samplers, {}, ids}, e);
        } catch (const Error& error) {
          EXPECT_EQ(ids, Ids(3, -7));
          for (const Sampler& s : samplers) EXPECT_EQ(s.drawn(), 0);
          return std::string(error.what());
        }
        return std::string("not refused");
      };
      const std::string sentence = why(exec, logits.device());
      EXPECT_EQ(sentence.substr(0, 22), "sample: row 1: Sampler") << sentence;
      EXPECT_EQ(sentence, why(cpu, logits.host()));
    }
  const auto logits = Both<float, 2>::random({1, 500}, 6);
  std::vector<Sampler> samplers(1, Sampler(SamplingOptions{.temperature = 1, .repetition_penalty = 2}, 500));
  const Ids outside{3, 500};
  const Histories histories{outside};
  Ids ids{-7};
  EXPECT_THROW(sample({logits.device(), samplers, histories, ids}, exec), Error);
  EXPECT_EQ(ids[0], -7);
  EXPECT_EQ(samplers[0].drawn(), 0);
}

}  // namespace
}  // namespace ashlar
