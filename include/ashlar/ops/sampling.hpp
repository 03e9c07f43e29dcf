// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// How the next token is chosen. The steps in their order, each on what the one before left:
//
//   repetition_penalty r: each distinct id of the history once, logit / r above 0, logit * r below (Keskar et
//     al., 2019)
//   temperature: logits / temperature; 0: the largest logit wins (the first of equals), the rest is not used
//   top_k: the k largest logits (Fan et al., 2018); 0: all
//   top_p: the fewest most likely ids whose probabilities sum to at least p, at least one (Holtzman et al.,
//     2020); 1: all
//   min_p: ids at least min_p times as likely as the most likely one (Nguyen et al., 2024)
//
// Of equal logits the lower id comes first.
struct SamplingOptions {
  float temperature = 0;
  Index top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  std::uint64_t seed = 0;
};

// A sequence's stream of random numbers, by the generator splitmix64 (Steele, Lea and Flood, 2014), and how
// it draws tokens with them: the same seed gives the same numbers everywhere. A value: a copy continues the
// same stream. Allocates only at its first token on the host.
class Sampler {
 public:
  // Refuses options out of range and a vocabulary that is empty or beyond 2^31.
  Sampler(const SamplingOptions& options, Index vocab_size);

  // The next token's id. Refused: logits of another length, NaN or +inf among them, all of them -inf, ids of
  // `history` outside the vocabulary (looked at only with a repetition penalty). A refused call draws
  // nothing.
  std::int32_t operator()(View<const float, 1> logits, std::span<const std::int32_t> history);

  const SamplingOptions& options() const { return options_; }
  Index vocab_size() const { return vocabulary_; }

  // The stream's next number, in [0, 1), a multiple of 2^-53; each token above temperature 0 takes one.
  double uniform();
  // How many numbers were taken, and going to where so many were: to take tokens back, or to go on later.
  std::uint64_t drawn() const { return drawn_; }
  void seek(std::uint64_t drawn) { drawn_ = drawn; }

 private:
  const float* penalise(const float* logits, std::span<const std::int32_t> history);
  std::int32_t draw(const float* logits, float largest);
  std::int32_t choose(Index kept, double target) const;

  SamplingOptions options_;
  Index vocabulary_;
  std::uint64_t drawn_ = 0;               // the generator's counter
  std::vector<float> penalised_;          // [V] logits after the penalty
  std::vector<char> seen_;                // [V] ids of the history already handled, zeros between calls
  std::vector<std::int32_t> candidates_;  // [V]
  std::vector<double> weights_;           // [V] of those that may be drawn: probability over the largest one
};

// The next token of each of N sequences: ids[n] = samplers[n](logits[n], histories[n]). Refused: what the
// samplers refuse, other numbers of samplers, histories or ids than N, histories that a sampler with a
// repetition penalty would need and that are left out. A refused call draws nothing and writes no id.
struct Sample {
  View<const float, 2> logits;                               // [N, V]
  std::span<Sampler> samplers;                               // [N]
  std::span<const std::span<const std::int32_t>> histories;  // [N], or none
  std::span<std::int32_t> ids;                               // [N]
};

void sample(const Sample& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
