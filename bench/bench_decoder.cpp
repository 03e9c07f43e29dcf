// SPDX-License-Identifier: Apache-2.0
// A whole language model with random weights: Olmo Hybrid of 1.1 billion parameters in bf16.
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "ashlar/models/load.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "bench/olmo_hybrid.hpp"
#include "bench/peak.hpp"
#include "tests/count_allocations.hpp"

namespace ashlar {
namespace {

using Model = DecoderLm<CpuExec>;
using Cache = Model::Cache;

constexpr bench::OlmoHybrid kShape = bench::kOlmoHybrid1b;
constexpr Index kCapacity = 2048;

const Model& model() {
  static const auto loaded = [] {
    CpuExec exec;
    return load_decoder_lm(kShape.config(), RandomParameters(DType::bf16, 1, kShape.present), exec);
  }();
  return *loaded;
}

void prefill(benchmark::State& state, Index tokens) {
  CpuExec exec;
  Cache fresh = model().new_cache(tokens), cache;
  Tensor<float, 2> logits({1, kShape.vocab});
  const auto prompt = kShape.ids(tokens);
  for (auto _ : state) {
    state.PauseTiming();
    cache = fresh;
    Cache* const caches[] = {&cache};
    state.ResumeTiming();
    model().prefill(prompt, {}, caches, logits.view(), exec);
  }
  const double t = static_cast<double>(tokens);
  bench::report(state, kShape.prefill_flops(tokens, model().size().matmul_parameters), 0, exec);
  state.counters["tokens/s"] = benchmark::Counter(t, benchmark::Counter::kIsIterationInvariantRate);
}

// One token of each of N sequences, 512 tokens in.
void decode(benchmark::State& state, Index sequences) {
  constexpr Index kStart = 512;
  CpuExec exec;
  std::vector<Cache> caches(static_cast<std::size_t>(sequences), model().new_cache(kCapacity));
  std::vector<Cache*> pointers;
  Tensor<float, 2> logits({sequences, kShape.vocab});
  const auto prompt = kShape.ids(kStart), next = kShape.ids(sequences);
  for (Cache& cache : caches) {
    pointers.push_back(&cache);
    model().prefill(prompt, {}, std::span(&pointers.back(), 1), logits.view().slice(0, 0, 1), exec);
  }
  model().decode(next, pointers, logits.view(), exec);
  Index steps = 0, positions = 0;
  const long before = test::allocations_so_far;
  for (auto _ : state) {
    if (caches[0].position() == kCapacity) {
      state.SkipWithError("the caches are full");
      break;
    }
    positions += caches[0].position(), ++steps;
    model().decode(next, pointers, logits.view(), exec);
  }
  const long allocations = test::allocations_so_far - before;
  const double n = static_cast<double>(sequences);
  // Read once, whatever the batch; each sequence reads its keys and values, and reads and writes its state.
  const double weights = static_cast<double>(model().size().bytes_per_token);
  const double mean = steps > 0 ? static_cast<double>(positions) / static_cast<double>(steps) : 0;
  bench::report(state, 0, weights + n * kShape.cache_bytes(mean, sizeof(float)), exec);
  state.counters["tokens/s"] = benchmark::Counter(n, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["allocations"] =
      static_cast<double>(allocations) / static_cast<double>(std::max<Index>(steps, 1));
}

double peak_rss() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  auto add = [](const std::string& name, auto f) {
    benchmark::RegisterBenchmark(name.c_str(), f)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (Index sequences : {1, 4})
    add(concat("decode/", kShape.name, "/N:", sequences), [=](benchmark::State& s) { decode(s, sequences); });
  for (Index tokens : {64, 512})
    add(concat("prefill/", kShape.name, "/T:", tokens), [=](benchmark::State& s) { prefill(s, tokens); });
  benchmark::Initialize(&argc, argv);
  CpuExec exec;
  measure_peak(exec);  // its memory is not the model's
  const double bare = peak_rss();
  benchmark::RunSpecifiedBenchmarks();
  const DecoderSize size = model().size();
  std::printf(
      "%s: %td parameters; weights %.0f MB, a cache of %td tokens %.0f MB, peak memory %.0f MB (%.0f MB "
      "before)\n",
      kShape.name, size.parameters, static_cast<double>(size.bytes) / 1e6, kCapacity,
      static_cast<double>(model().new_cache(kCapacity).bytes()) / 1e6, peak_rss() / 1e6, bare / 1e6);
}
