// SPDX-License-Identifier: Apache-2.0
// A whole language model with random weights: Olmo Hybrid of 1.1 billion parameters in bf16, three layers of
// Gated DeltaNet to one of attention.
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "ashlar/models/load.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "bench/peak.hpp"
#include "tests/count_allocations.hpp"

namespace ashlar {
namespace {

using Model = DecoderLm<CpuExec>;
using Cache = Model::Cache;

constexpr Index kHidden = 2048, kLayers = 16, kHeads = 16, kHeadDim = 128, kKeyDim = 96, kValueDim = 192;
constexpr Index kAttentionLayers = kLayers / 4, kLinearLayers = kLayers - kAttentionLayers, kVocab = 50304;
constexpr Index kCapacity = 2048;
constexpr const char* kName = "olmo_hybrid_1b";

Value config() {
  auto n = [](Index x) { return Value(static_cast<std::int64_t>(x)); };
  return Value::Object{{"model_type", Value(std::string("olmo_hybrid"))},
                       {"vocab_size", n(kVocab)},
                       {"hidden_size", n(kHidden)},
                       {"intermediate_size", n(5632)},
                       {"num_hidden_layers", n(kLayers)},
                       {"num_attention_heads", n(kHeads)},
                       {"linear_key_head_dim", n(kKeyDim)},
                       {"linear_value_head_dim", n(kValueDim)}};
}

// The released models' spelling.
bool present(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  const bool attention = name.starts_with(kPrefix) && std::atoi(name.data() + kPrefix.size()) % 4 == 3;
  if (name.ends_with("post_feedforward_layernorm.weight")) return attention;
  if (name.ends_with("input_layernorm.weight")) return !attention;
  return name == "lm_head.weight" || name.ends_with(".conv1d.weight");
}

const Model& model() {
  static const auto loaded = [] {
    CpuExec exec;
    return load_decoder_lm(config(), RandomParameters(DType::bf16, 1, present), exec);
  }();
  return *loaded;
}

std::vector<std::int32_t> ids(Index n) {
  std::vector<std::int32_t> all;
  for (Index i = 0; i < n; ++i) all.push_back(static_cast<std::int32_t>(i * 7919 % kVocab));
  return all;
}

void prefill(benchmark::State& state, Index tokens) {
  CpuExec exec;
  Cache fresh = model().new_cache(tokens), cache;
  Tensor<float, 2> logits({1, kVocab});
  const auto prompt = ids(tokens);
  for (auto _ : state) {
    state.PauseTiming();
    cache = fresh;
    Cache* const caches[] = {&cache};
    state.ResumeTiming();
    model().prefill(prompt, {}, caches, logits.view(), exec);
  }
  const double t = static_cast<double>(tokens),
               head = static_cast<double>(kVocab * kHidden);  // once a prompt
  const double dense = 2 * ((static_cast<double>(model().size().matmul_parameters) - head) * t + head);
  const double recurrence = 6.0 * kLinearLayers * kHeads * kKeyDim * kValueDim * t;
  const double attention = 4.0 * kAttentionLayers * kHeads * kHeadDim * t * (t + 1) / 2;
  bench::report(state, dense + recurrence + attention, 0, exec);
  state.counters["tokens/s"] = benchmark::Counter(t, benchmark::Counter::kIsIterationInvariantRate);
}

// One token of each of N sequences, 512 tokens in.
void decode(benchmark::State& state, Index sequences) {
  constexpr Index kStart = 512;
  CpuExec exec;
  std::vector<Cache> caches(static_cast<std::size_t>(sequences), model().new_cache(kCapacity));
  std::vector<Cache*> pointers;
  Tensor<float, 2> logits({sequences, kVocab});
  const auto prompt = ids(kStart), next = ids(sequences);
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
  const double kv = mean * 2 * kAttentionLayers * kHeads * kHeadDim * sizeof(float);
  const double recurrent = 2.0 * kLinearLayers * kHeads * kKeyDim * kValueDim * sizeof(float);
  bench::report(state, 0, weights + n * (kv + recurrent), exec);
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
    add(concat("decode/", kName, "/N:", sequences), [=](benchmark::State& s) { decode(s, sequences); });
  for (Index tokens : {64, 512})
    add(concat("prefill/", kName, "/T:", tokens), [=](benchmark::State& s) { prefill(s, tokens); });
  benchmark::Initialize(&argc, argv);
  CpuExec exec;
  measure_peak(exec);  // its memory is not the model's
  const double bare = peak_rss();
  benchmark::RunSpecifiedBenchmarks();
  const DecoderSize size = model().size();
  std::printf(
      "%s: %td parameters; weights %.0f MB, a cache of %td tokens %.0f MB, peak memory %.0f MB (%.0f MB "
      "before)\n",
      kName, size.parameters, static_cast<double>(size.bytes) / 1e6, kCapacity,
      static_cast<double>(model().new_cache(kCapacity).bytes()) / 1e6, peak_rss() / 1e6, bare / 1e6);
}
