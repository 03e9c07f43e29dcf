// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "src/core/sampling_check.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The largest logit; refuses NaN and +inf, and -inf alone. Sixteen lanes, so that the compiler can use
// vectors.
float checked_max(const float* x, Index n) {
  constexpr Index kLanes = 16;
  float most[kLanes];
  int bad[kLanes] = {};
  std::fill_n(most, kLanes, -kInfinity);
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (Index j = 0; j < kLanes; ++j) {
      most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
      bad[j] |= !(x[i + j] < kInfinity);
    }
  for (; i < n; ++i) most[0] = std::max(most[0], x[i]), bad[0] |= !(x[i] < kInfinity);
  if (std::any_of(bad, bad + kLanes, [](int b) { return b != 0; }))
    for (i = 0; i < n; ++i)
      if (!(x[i] < kInfinity)) refuse_logit(i, x[i]);
  const float largest = *std::max_element(most, most + kLanes);
  if (largest == -kInfinity) refuse_masked(n);
  return largest;
}

void check(const SamplingOptions& o, Index vocabulary) {
  auto expect = [](bool ok, std::string_view what, double value, std::string_view range) {
    if (!ok) refuse("Sampler", what, " is ", value, ", expected ", range);
  };
  expect(o.temperature >= 0 && o.temperature < kInfinity, "temperature", o.temperature, "0 (greedy) or more");
  if (o.top_k < 0) refuse("Sampler", "top_k is ", o.top_k, ", expected 0 (all) or more");
  expect(o.top_p > 0 && o.top_p <= 1, "top_p", o.top_p, "a number in (0, 1]");
  expect(o.min_p >= 0 && o.min_p <= 1, "min_p", o.min_p, "a number in [0, 1]");
  expect(o.repetition_penalty > 0 && o.repetition_penalty < kInfinity, "repetition_penalty",
         o.repetition_penalty, "a positive number");
  if (vocabulary < 1 || vocabulary > std::numeric_limits<std::int32_t>::max())
    refuse("Sampler", "vocab_size is ", vocabulary, ", expected 1 to 2147483647");
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options, Index vocab_size)
    : options_(options), vocabulary_(vocab_size) {
  check(options, vocab_size);
}

std::int32_t Sampler::operator()(View<const float, 1> logits, std::span<const std::int32_t> history) {
  expect_shape("Sampler", "logits", logits, {vocabulary_});
  const float* x = logits.data;
  float largest = checked_max(x, vocabulary_);
  if (options_.repetition_penalty != 1) {
    x = penalise(x, history);
    largest = checked_max(x, vocabulary_);
  }
  if (options_.temperature == 0) return static_cast<std::int32_t>(std::find(x, x + vocabulary_, largest) - x);
  return draw(x, largest);
}

const float* Sampler::penalise(const float* logits, std::span<const std::int32_t> history) {
  check_history(history, vocabulary_);
  penalised_.assign(logits, logits + vocabulary_);
  seen_.resize(penalised_.size());
  const float r = options_.repetition_penalty;
  for (const std::int32_t id : history) {
    const auto i = static_cast<std::size_t>(id);
    if (seen_[i]) continue;
    seen_[i] = 1;
    penalised_[i] = penalised_[i] > 0 ? penalised_[i] / r : penalised_[i] * r;
  }
  for (const std::int32_t id : history) seen_[static_cast<std::size_t>(id)] = 0;
  return penalised_.data();
}

std::int32_t Sampler::draw(const float* logits, float largest) {
  candidates_.resize(static_cast<std::size_t>(vocabulary_)), weights_.resize(candidates_.size());
  const double temperature = options_.temperature, min_p = options_.min_p, top_p = options_.top_p;
  const Index n = options_.top_k == 0 ? vocabulary_ : std::min(options_.top_k, vocabulary_);
  // Probability over that of the most likely id. e^-45 is under the last bit of a sum over any vocabulary.
  auto weight = [&](std::int32_t id) {
    const double x = (static_cast<double>(logits[id]) - static_cast<double>(largest)) / temperature;
    return x < -45 ? 0 : std::exp(x);
  };
  Index kept = 0;
  double sum = 0;
  auto keep = [&](double w) { sum += weights_[static_cast<std::size_t>(kept++)] = w; };
  const auto first = candidates_.begin(), last = first + n;
  const bool ordered = top_p < 1 || n < vocabulary_;
  if (!ordered) {
    for (std::int32_t id = 0; id < n; ++id) {
      const double w = weight(id);
      keep(w < min_p ? 0 : w);
    }
  } else {
    std::iota(first, candidates_.end(), 0);
    auto below = [&](std::int32_t a, std::int32_t b) {
      return logits[a] < logits[b] || (logits[a] == logits[b] && a > b);
    };
    auto above = [&](std::int32_t a, std::int32_t b) { return below(b, a); };
    if (n < vocabulary_) std::nth_element(first, last, candidates_.end(), above);
    double enough = std::numeric_limits<double>::infinity();
    if (top_p < 1)
      enough = top_p * std::accumulate(first, last, 0.0, [&](double s, auto id) { return s + weight(id); });
    // Taken from a heap only as far as needed; a taken id stands behind the heap.
    std::make_heap(first, last, below);
    while (kept < n && sum < enough) {
      const double w = weight(*first);
      if (w == 0 || w < min_p) break;
      std::pop_heap(first, last - kept, below);
      keep(w);
    }
  }
  const std::int32_t i = choose(kept, uniform() * sum);
  return ordered ? *(last - 1 - i) : i;
}

// The first of `kept` weights with which the running sum exceeds `target`.
std::int32_t Sampler::choose(Index kept, double target) const {
  Index chosen = 0;
  double sum = 0;
  for (Index i = 0; i < kept && sum <= target; ++i) {
    const double w = weights_[static_cast<std::size_t>(i)];
    if (w > 0) chosen = i, sum += w;
  }
  return static_cast<std::int32_t>(chosen);
}

double Sampler::uniform() {
  std::uint64_t z = options_.seed + ++drawn_ * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

void sample(const Sample& a, CpuExec& exec) {
  check(a);
  std::vector<std::int32_t> ids(a.ids.size());
  all_or_none(a.samplers, [&] {
    exec.parallel_for(static_cast<Index>(ids.size()), [&](Index row, int) {
      const auto i = static_cast<std::size_t>(row);
      const auto history = a.histories.empty() ? std::span<const std::int32_t>() : a.histories[i];
      in_row(row, [&] { ids[i] = a.samplers[i](a.logits[row], history); });
    });
  });
  std::copy(ids.begin(), ids.end(), a.ids.begin());
}

}  // namespace v0
}  // namespace ashlar
