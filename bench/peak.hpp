// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "ashlar/core/peak.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar::bench {

// Counters of a finished loop: flops and bytes a second, and the larger of the fractions of this machine's
// FMA peak and of its memory bandwidth (`bytes` of which `written` are written; 0 where the arrays fit a
// cache).
inline void report(benchmark::State& state, double flops, double bytes, CpuExec& exec, double written = 0) {
  using benchmark::Counter;
  const Peak p = measure_peak(exec);  // now, beside the loop: a shared machine is not the same all day
  const double bandwidth = written > 0 ? p.copy_bytes : p.read_bytes;
  state.counters["flops"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["bytes"] = Counter(bytes, Counter::kIsIterationInvariantRate);
  state.counters["peak_fraction"] =
      Counter(std::max(flops / p.fma_flops, bytes / bandwidth), Counter::kIsIterationInvariantRate);
}

// The whole loop of a case that reads `bytes` from memory, of which `written` are written back: run() and a
// plain pass over memory of the same kind take turns, each timed by itself (the case asks for UseManualTime).
// peak_fraction is the median of their ratios, so that a bandwidth that changes meanwhile is in both.
template <class F>
void run_beside_memory(benchmark::State& state, double bytes, double written, CpuExec& exec, F&& run) {
  using Clock = std::chrono::steady_clock;
  MemoryPasses memory(exec);
  std::vector<double> fractions;
  for (auto _ : state) {
    const double before = written > 0 ? memory.update() : memory.read();
    const auto begin = Clock::now();
    run();
    const double time = std::chrono::duration<double>(Clock::now() - begin).count();
    state.SetIterationTime(time);
    fractions.push_back(bytes / time / before);
  }
  const auto middle = fractions.begin() + static_cast<std::ptrdiff_t>(fractions.size() / 2);
  std::nth_element(fractions.begin(), middle, fractions.end());
  state.counters["bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["peak_fraction"] = *middle;
}

// Uniform in (-scale, scale).
template <int Rank>
Tensor<float, Rank> random(std::array<Index, Rank> shape, float scale = 1, unsigned seed = 1) {
  Tensor<float, Rank> t(shape);
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> u(-scale, scale);
  for (Index i = 0; i < t.size(); ++i) t.data()[i] = u(rng);
  return t;
}

}  // namespace ashlar::bench
