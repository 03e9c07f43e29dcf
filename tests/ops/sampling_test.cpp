// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/sampling.hpp"

#include <map>
#include <set>

#include "tests/support.hpp"

namespace ashlar {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

View<const float, 1> view(const std::vector<float>& x) { return {x.data(), {static_cast<Index>(x.size())}}; }

// Logits whose softmax is these numbers.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> x;
  for (double p : probabilities) x.push_back(static_cast<float>(std::log(p)));
  return x;
}

std::map<int, int> draw(const SamplingOptions& options, const std::vector<float>& logits, int times) {
  Sampler sampler(options, static_cast<Index>(logits.size()));
  std::map<int, int> counts;
  for (int i = 0; i < times; ++i) ++counts[sampler(view(logits), {})];
  return counts;
}

std::set<int> candidates(SamplingOptions options, const std::vector<float>& logits) {
  if (options.temperature == 0) options.temperature = 1;
  std::set<int> ids;
  for (const auto& [id, count] : draw(options, logits, 4000)) ids.insert(id);
  return ids;
}

using Set = std::set<int>;

// Pearson's statistic for the given probabilities.
double chi_square(const std::map<int, int>& counts, const std::map<int, double>& probabilities, int times) {
  double sum = 0;
  for (const auto& [id, count] : counts)
    EXPECT_TRUE(probabilities.contains(id)) << "id " << id << " was drawn";
  for (const auto& [id, p] : probabilities) {
    const double seen = counts.contains(id) ? counts.at(id) : 0;
    sum += (seen - times * p) * (seen - times * p) / (times * p);
  }
  return sum;
}

TEST(Sampler, TakesTheFirstMaximumAtTemperatureZero) {
  std::mt19937 rng(1);
  std::normal_distribution<float> n;
  for (std::size_t size : {1u, 7u, 16u, 63u, 67u, 1000u})
    for (int round = 0; round < 20; ++round) {
      std::vector<float> x(size);
      for (float& e : x) e = std::round(n(rng) * 2);  // many equals
      Sampler sampler({}, static_cast<Index>(size));
      EXPECT_EQ(sampler(view(x), {}), std::max_element(x.begin(), x.end()) - x.begin());
    }
  Sampler sampler({}, 4);
  EXPECT_EQ(sampler(view({-kInf, -3, -kInf, -2}), {}), 3);
}

TEST(Sampler, DrawsTheSoftmaxOfTheLogitsOverTheTemperature) {
  const std::vector<double> p{0.4, 0.05, 0.3, 0.15, 0.1};
  for (double temperature : {0.5, 1.0, 2.0}) {
    std::map<int, double> want;
    double sum = 0;
    for (double e : p) sum += std::pow(e, 1 / temperature);
    for (int i = 0; i < 5; ++i) want[i] = std::pow(p[static_cast<std::size_t>(i)], 1 / temperature) / sum;
    SamplingOptions options;
    options.temperature = static_cast<float>(temperature), options.seed = 11;
    const int times = 100000;
    // 4 degrees of freedom: 18.5 is exceeded once in a thousand. The order of the ids must not matter: top_p
    // sorts them.
    EXPECT_LT(chi_square(draw(options, logits_of(p), times), want, times), 18.5) << temperature;
    options.top_p = 0.9999999f, options.seed = 12;
    EXPECT_LT(chi_square(draw(options, logits_of(p), times), want, times), 18.5) << temperature;
  }
}

TEST(Sampler, RenormalisesWhatTheFiltersLeave) {
  SamplingOptions options;
  options.temperature = 1, options.top_k = 3, options.seed = 5;
  const int times = 100000;
  const auto counts = draw(options, logits_of({0.1, 0.4, 0.05, 0.25, 0.2}), times);
  EXPECT_LT(chi_square(counts, {{1, 0.4 / 0.85}, {3, 0.25 / 0.85}, {4, 0.2 / 0.85}}, times),
            13.8);  // 2 degrees
}

TEST(Sampler, TopKKeepsTheLargestAndOfEqualsTheFirst) {
  const auto x = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});
  EXPECT_EQ(candidates({.top_k = 1}, x), (Set{1}));
  EXPECT_EQ(candidates({.top_k = 3}, x), (Set{1, 3, 4}));
  EXPECT_EQ(candidates({.top_k = 5}, x), (Set{0, 1, 2, 3, 4}));
  EXPECT_EQ(candidates({.top_k = 9}, x), (Set{0, 1, 2, 3, 4}));
  EXPECT_EQ(candidates({.top_k = 2}, {1, 1, 1, 1}), (Set{0, 1}));
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  const auto x = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});  // in order: 0.4, 0.65, 0.85, 0.95, 1
  EXPECT_EQ(candidates({.top_p = 0.01f}, x), (Set{1}));
  EXPECT_EQ(candidates({.top_p = 0.39f}, x), (Set{1}));
  EXPECT_EQ(candidates({.top_p = 0.41f}, x), (Set{1, 3}));
  EXPECT_EQ(candidates({.top_p = 0.84f}, x), (Set{1, 3, 4}));
  EXPECT_EQ(candidates({.top_p = 0.86f}, x), (Set{0, 1, 3, 4}));
  EXPECT_EQ(candidates({.top_p = 1}, x), (Set{0, 1, 2, 3, 4}));
  // Of the three that top_k leaves, 0.4 / 0.85 = 0.47 and 0.65 / 0.85 = 0.76.
  EXPECT_EQ(candidates({.top_k = 3, .top_p = 0.46f}, x), (Set{1}));
  EXPECT_EQ(candidates({.top_k = 3, .top_p = 0.75f}, x), (Set{1, 3}));
  EXPECT_EQ(candidates({.top_k = 3, .top_p = 0.78f}, x), (Set{1, 3, 4}));
  // Exact halves: the first reaches 0.5 by itself.
  EXPECT_EQ(candidates({.top_p = 0.5f}, {2, 2}), (Set{0}));
}

TEST(Sampler, MinPIsRelativeToTheMostLikely) {
  const auto x = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});
  EXPECT_EQ(candidates({.min_p = 0.12f}, x), (Set{0, 1, 2, 3, 4}));
  EXPECT_EQ(candidates({.min_p = 0.13f}, x), (Set{0, 1, 3, 4}));
  EXPECT_EQ(candidates({.min_p = 0.26f}, x), (Set{1, 3, 4}));
  EXPECT_EQ(candidates({.min_p = 1}, x), (Set{1}));
  EXPECT_EQ(candidates({.min_p = 1}, {3, 0, 3}), (Set{0, 2}));
  EXPECT_EQ(candidates({.top_k = 4, .top_p = 0.9f, .min_p = 0.55f}, x), (Set{1, 3}));
  // With temperature 2 the ratio 0.05 / 0.4 becomes its square root, 0.354.
  EXPECT_EQ(candidates({.temperature = 2, .min_p = 0.35f}, x), (Set{0, 1, 2, 3, 4}));
  EXPECT_EQ(candidates({.temperature = 2, .min_p = 0.36f}, x), (Set{0, 1, 3, 4}));
}

TEST(Sampler, NeverDrawsWhatIsMaskedOut) {
  const std::vector<float> x{-kInf, 0, -kInf, -1, -kInf};
  EXPECT_EQ(candidates({}, x), (Set{1, 3}));
  EXPECT_EQ(candidates({.top_k = 4}, x), (Set{1, 3}));
  EXPECT_EQ(candidates({.top_p = 0.99f}, x), (Set{1, 3}));
  EXPECT_EQ(candidates({.temperature = 1e-30f}, {1, 1.0001f}), (Set{1}));
}

TEST(Sampler, PenalisesEachIdOfTheHistoryOnce) {
  const std::vector<std::int32_t> history{0, 0, 0, 3, 3};
  auto next = [&](float penalty, const std::vector<float>& x) {
    SamplingOptions options;
    options.repetition_penalty = penalty;
    Sampler sampler(options, static_cast<Index>(x.size()));
    sampler(view(x), history);  // nothing of an earlier call stays behind
    return sampler(view(x), history);
  };
  EXPECT_EQ(next(2, {4, 1.9f, 0, 0}), 0);  // 4 / 2, not 4 / 8
  EXPECT_EQ(next(2, {4, 2.1f, 0, 0}), 1);
  EXPECT_EQ(next(2, {-1, -2.1f, -5, -9}), 0);  // -1 * 2
  EXPECT_EQ(next(2, {-1, -1.9f, -5, -9}), 1);
  EXPECT_EQ(next(0.5f, {4, 7.9f, 0, 0}), 0);  // below 1 it rewards
}

TEST(Sampler, RepeatsItselfFromItsSeedOnEveryPlatform) {
  SamplingOptions options;
  options.temperature = 1, options.seed = 1234567;
  const std::vector<float> x(1000000, 0);  // equal logits show the generator: id = floor(u * 10^6)
  Sampler a(options, 1000000), b(options, 1000000);
  const std::int32_t first = a(view(x), {}), second = a(view(x), {});
  EXPECT_EQ(b(view(x), {}), first);
  Sampler copy = a;
  EXPECT_EQ(copy(view(x), {}), a(view(x), {}));
  // splitmix64 from seed 1234567 begins 6457827717110365317, 3203168211198807973 (as published with the
  // algorithm).
  EXPECT_EQ(first, static_cast<std::int32_t>(6457827717110365317.0 / 18446744073709551616.0 * 1e6));
  EXPECT_EQ(second, static_cast<std::int32_t>(3203168211198807973.0 / 18446744073709551616.0 * 1e6));
}

TEST(Sampler, RefusesBadOptions) {
  auto why = [](const SamplingOptions& o) { return test::refusal([&] { Sampler(o, 10); }); };
  EXPECT_EQ(why({.temperature = -1}), "Sampler: temperature is -1.000000, expected 0 (greedy) or more");
  EXPECT_EQ(why({.temperature = std::nanf("")}), "Sampler: temperature is nan, expected 0 (greedy) or more");
  EXPECT_EQ(why({.top_k = -2}), "Sampler: top_k is -2, expected 0 (all) or more");
  EXPECT_EQ(why({.top_p = 0}), "Sampler: top_p is 0.000000, expected a number in (0, 1]");
  EXPECT_EQ(why({.top_p = 1.5f}), "Sampler: top_p is 1.500000, expected a number in (0, 1]");
  EXPECT_EQ(why({.min_p = -0.5f}), "Sampler: min_p is -0.500000, expected a number in [0, 1]");
  EXPECT_EQ(why({.repetition_penalty = 0}),
            "Sampler: repetition_penalty is 0.000000, expected a positive number");
  EXPECT_EQ(test::refusal([] { Sampler({}, 0); }), "Sampler: vocab_size is 0, expected 1 to 2147483647");
}

TEST(Sampler, RefusesBadLogitsAndHistory) {
  for (float temperature : {0.0f, 1.0f}) {
    SamplingOptions options;
    options.temperature = temperature, options.repetition_penalty = 1.5f;
    Sampler sampler(options, 20);
    std::vector<float> x(20, 1);
    for (std::size_t at : {0u, 15u, 16u, 19u}) {
      x[at] = std::nanf("");
      EXPECT_EQ(test::refusal([&] { sampler(view(x), {}); }),
                concat("Sampler: logits[", at, "] is NaN, expected a finite number or -inf"));
      x[at] = kInf;
      EXPECT_EQ(test::refusal([&] { sampler(view(x), {}); }),
                concat("Sampler: logits[", at, "] is +inf, expected a finite number or -inf"));
      x[at] = 1;
    }
    EXPECT_EQ(test::refusal([&] { sampler(view(std::vector<float>(20, -kInf)), {}); }),
              "Sampler: all 20 logits are -inf, expected at least one finite number");
    EXPECT_EQ(test::refusal([&] { sampler(view(std::vector<float>(19, 0)), {}); }),
              "Sampler: logits has shape [19], expected [20]");
    const std::vector<std::int32_t> history{3, 20};
    EXPECT_EQ(test::refusal([&] { sampler(view(x), history); }),
              "Sampler: history[1] is 20, expected 0 to 19");
  }
}

// Rows of different options, by one call or by their samplers.
TEST(Sample, DrawsForEachRowWhatItsSamplerDraws) {
  constexpr Index kRows = 5, kVocabulary = 300;
  Tensor<float, 2> x({kRows, kVocabulary});
  std::mt19937 rng(3);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = std::normal_distribution<float>()(rng);
  const std::vector<std::int32_t> said{4, 7, 7, 299};
  const std::vector<std::span<const std::int32_t>> histories{said, {}, said, {}, said};
  std::vector<Sampler> samplers, alone;
  for (unsigned n = 0; n < kRows; ++n)
    samplers.emplace_back(SamplingOptions{.temperature = static_cast<float>(n) / 2,
                                          .top_k = n * 7,
                                          .repetition_penalty = n == 2 ? 1.5f : 1,
                                          .seed = n},
                          kVocabulary);
  alone = samplers;
  for (int threads : {1, 2, 3}) {
    CpuExec exec({.threads = threads});
    std::vector<std::int32_t> ids(kRows, -1);
    sample({std::as_const(x).view(), samplers, histories, ids}, exec);
    for (std::size_t n = 0; n < kRows; ++n) {
      EXPECT_EQ(ids[n], alone[n](std::as_const(x).view()[static_cast<Index>(n)], histories[n]));
      EXPECT_EQ(samplers[n].drawn(), alone[n].drawn());
    }
  }
  samplers[4].seek(0);
  EXPECT_EQ(samplers[4].uniform(), Sampler(SamplingOptions{.seed = 4}, 1).uniform());
}

TEST(Sample, RefusesAllRowsOrNone) {
  CpuExec exec({.threads = 1});
  Tensor<float, 2> x({3, 8});
  std::vector<Sampler> samplers(3, Sampler(SamplingOptions{.temperature = 1}, 8));
  std::vector<std::int32_t> ids(3, -7);
  auto why = [&](std::span<const std::span<const std::int32_t>> histories = {}) {
    const std::string sentence = test::refusal([&] {
      sample({std::as_const(x).view(), samplers, histories, ids}, exec);
    });
    EXPECT_EQ(ids, std::vector<std::int32_t>(3, -7));
    for (const Sampler& s : samplers) EXPECT_EQ(s.drawn(), 0);
    return sentence;
  };
  x.view()(2, 5) = std::nanf("");
  EXPECT_EQ(why(), "sample: row 2: Sampler: logits[5] is NaN, expected a finite number or -inf");
  x.view()(2, 5) = 0;
  ids.pop_back();
  EXPECT_EQ(test::refusal([&] {
              sample({std::as_const(x).view(), samplers, {}, ids}, exec);
            }),
            "sample: ids has 2 elements, expected 3, one a row of logits");
  ids.push_back(-7);
  const std::vector<std::span<const std::int32_t>> two(2);
  EXPECT_EQ(why(two), "sample: histories has 2 elements, expected 3, one a row of logits");
  samplers[1] = Sampler(SamplingOptions{.repetition_penalty = 2}, 8);
  EXPECT_EQ(why(), "sample: samplers[1] has a repetition penalty, expected histories, one a row of logits");
  samplers[1] = Sampler({}, 9);
  EXPECT_EQ(why(), "sample: samplers[1] is of a vocabulary of 9, expected 8, the length of a row of logits");
  samplers.pop_back();
  EXPECT_EQ(test::refusal([&] {
              sample({std::as_const(x).view(), samplers, {}, ids}, exec);
            }),
            "sample: samplers has 2 elements, expected 3, one a row of logits");
}

}  // namespace
}  // namespace ashlar
