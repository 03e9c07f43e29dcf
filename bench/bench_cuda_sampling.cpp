// SPDX-License-Identifier: Apache-2.0
// Choosing tokens on the device, until the ids are in the host's memory; peak_fraction is of reading the
// logits once. `host_seconds` is what copying the logits and choosing on one core of the host takes.
#include <chrono>
#include <random>
#include <vector>

#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/cuda/ops.hpp"
#include "bench/cuda_peak.hpp"

namespace ashlar {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Logits as language models have them: a few tokens stand out of a wide bell.
Tensor<float, 2> logits_of(Index rows, Index vocabulary) {
  Tensor<float, 2> x({rows, vocabulary});
  std::mt19937 rng(1);
  std::normal_distribution<float> bell(0, 2.5f);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = bell(rng);
  for (Index n = 0; n < rows; ++n)
    for (int i = 0; i < 20; ++i)
      x.view()(n, static_cast<Index>(rng() % static_cast<unsigned>(vocabulary))) =
          16 - 0.4f * static_cast<float>(i);
  return x;
}

void sampling(benchmark::State& state, Index rows, Index vocabulary, SamplingOptions options) {
  CudaExec exec;
  CpuExec cpu({.threads = 1});
  const Tensor<float, 2> on_cpu = logits_of(rows, vocabulary);
  const DeviceTensor<float, 2> logits(on_cpu.view());
  std::vector<std::int32_t> history(2048), ids(static_cast<std::size_t>(rows)), want = ids;
  for (std::size_t i = 0; i < history.size(); ++i) history[i] = static_cast<std::int32_t>(i * 37 % 1000);
  const std::vector<std::span<const std::int32_t>> histories(ids.size(), history);
  std::vector<Sampler> samplers, on_host;
  for (Index n = 0; n < rows; ++n) {
    options.seed = static_cast<std::uint64_t>(n);
    samplers.emplace_back(options, vocabulary);
  }
  on_host = samplers;
  auto by_host = [&] {
    const auto copy = logits.to_host();
    sample({copy.view(), on_host, histories, want}, cpu);
  };
  by_host();
  sample({logits.view(), samplers, histories, ids}, exec);
  if (ids != want) return state.SkipWithError("other tokens than the CPU's");
  const auto start = Clock::now();
  for (int i = 0; i < 3; ++i) by_host();
  const double host = seconds_since(start) / 3;
  for (auto _ : state) {
    const auto begin = Clock::now();
    sample({logits.view(), samplers, histories, ids}, exec);
    state.SetIterationTime(seconds_since(begin));
  }
  bench::report_cuda(state, 0, 4 * static_cast<double>(rows * vocabulary));
  state.counters["host_seconds"] = host;
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  return bench::run_on_device(argc, argv, benchmark::kMicrosecond, [](auto add) {
    const std::pair<const char*, SamplingOptions> cases[] = {
        {"greedy", {}},
        {"temperature", {.temperature = 0.8f}},
        {"top_k", {.temperature = 0.8f, .top_k = 40}},
        {"top_p", {.temperature = 0.8f, .top_p = 0.95f}},
        {"min_p", {.temperature = 0.8f, .min_p = 0.05f}},
        {"all",
         {.temperature = 0.8f, .top_k = 200, .top_p = 0.95f, .min_p = 0.01f, .repetition_penalty = 1.1f}},
    };
    for (const auto& [name, options] : cases)
      for (Index rows : {1, 8, 64}) {
        const SamplingOptions o = options;
        add(concat("sample/", name, "/N:", rows, "/V:100352"),
            [=](benchmark::State& s) { sampling(s, rows, 100352, o); });
      }
  });
}
