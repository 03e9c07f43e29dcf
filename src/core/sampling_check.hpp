// SPDX-License-Identifier: Apache-2.0
// What choosing a token refuses, wherever it runs.
#pragma once
#include <cmath>

#include "ashlar/ops/sampling.hpp"

namespace ashlar {
inline namespace v0 {

[[noreturn]] inline void refuse_logit(Index i, float value) {
  refuse("Sampler", "logits[", i, "] is ", std::isnan(value) ? "NaN" : "+inf",
         ", expected a finite number or -inf");
}
[[noreturn]] inline void refuse_masked(Index n) {
  refuse("Sampler", "all ", n, " logits are -inf, expected at least one finite number");
}

inline void check_history(std::span<const std::int32_t> history, Index vocabulary) {
  for (std::size_t i = 0; i < history.size(); ++i)
    if (history[i] < 0 || history[i] >= vocabulary)
      refuse("Sampler", "history[", i, "] is ", history[i], ", expected 0 to ", vocabulary - 1);
}

// Runs f; what it refuses is said to be of this row.
template <class F>
void in_row(Index row, F&& f) {
  try {
    f();
  } catch (const Error& e) {
    throw Error(e.kind(), concat("sample: row ", row, ": ", e.what()));
  }
}

// Runs f; where it throws, the samplers' streams go back to where they were.
template <class F>
void all_or_none(std::span<Sampler> samplers, F&& f) {
  std::vector<std::uint64_t> drawn;
  for (const Sampler& s : samplers) drawn.push_back(s.drawn());
  try {
    f();
  } catch (...) {
    for (std::size_t i = 0; i < drawn.size(); ++i) samplers[i].seek(drawn[i]);
    throw;
  }
}

inline void check(const Sample& a) {
  constexpr const char* op = "sample";
  const auto n = static_cast<std::size_t>(a.logits.shape[0]);
  expect_shape(op, "logits", a.logits, a.logits.shape);
  auto expect = [&](std::string_view what, std::size_t size) {
    if (size != n) refuse(op, what, " has ", size, " elements, expected ", n, ", one a row of logits");
  };
  expect("samplers", a.samplers.size());
  expect("ids", a.ids.size());
  if (!a.histories.empty()) expect("histories", a.histories.size());
  for (std::size_t i = 0; i < n; ++i) {
    const Sampler& s = a.samplers[i];
    if (s.vocab_size() != a.logits.shape[1])
      refuse(op, "samplers[", i, "] is of a vocabulary of ", s.vocab_size(), ", expected ", a.logits.shape[1],
             ", the length of a row of logits");
    if (s.options().repetition_penalty != 1 && a.histories.empty())
      refuse(op, "samplers[", i, "] has a repetition penalty, expected histories, one a row of logits");
  }
}

}  // namespace v0
}  // namespace ashlar
