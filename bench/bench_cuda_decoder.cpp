// SPDX-License-Identifier: Apache-2.0
// A whole language model on the device with random weights: Olmo Hybrid of 7 billion parameters in bf16. A
// step of decoding is timed by the host's clock, from its ids to its logits, as a graph.
#include <chrono>
#include <cmath>
#include <functional>
#include <stdexcept>

#include "ashlar/cuda/graph.hpp"
#include "ashlar/cuda/load.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "bench/cuda_peak.hpp"
#include "bench/olmo_hybrid.hpp"

namespace ashlar {
namespace {

using Model = DecoderLm<CudaExec>;
using Clock = std::chrono::steady_clock;

constexpr bench::OlmoHybrid kShape = bench::kOlmoHybrid7b;
constexpr Index kStart = 512, kCapacity = 4096;

// Random weights of which all large ones are parts of one array: made in a second instead of half a minute.
class SharedRandomParameters : public RandomParameters {
 public:
  SharedRandomParameters()
      : RandomParameters(DType::bf16, 1, kShape.present),
        all_(RandomParameters::make("all.weight", std::array<Index, 2>{kShape.vocab, kShape.hidden})) {}
  Parameter make(std::string_view name, std::span<const Index> shape) const override {
    constexpr Index kLarge = Index{1} << 20;
    Index n = 1;
    for (Index e : shape) n *= e;
    if (n < kLarge || n > all_.size()) return RandomParameters::make(name, shape);
    const Index room = all_.size() - n + 1,
                first = static_cast<Index>(std::hash<std::string_view>()(name) >> 1) % room;
    return {
        static_cast<const bf16*>(all_.data) + first, DType::bf16, {shape.begin(), shape.end()}, all_.owner};
  }

 private:
  Parameter all_;
};

const Model& model() {
  static const auto loaded = [] {
    CudaExec exec;
    return load_decoder_lm(kShape.config(), SharedRandomParameters(), exec);
  }();
  return *loaded;
}

// Logits that are numbers and not all the same.
void check(const DeviceTensor<float, 2>& logits) {
  const Tensor<float, 2> host = logits.to_host();
  float low = host.data()[0], high = low;
  for (Index i = 0; i < host.size(); ++i) {
    if (!std::isfinite(host.data()[i])) throw std::runtime_error("a logit is not a number");
    low = std::min(low, host.data()[i]), high = std::max(high, host.data()[i]);
  }
  if (!(high > low)) throw std::runtime_error("all logits are the same");
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void prefill(benchmark::State& state, Index tokens) {
  CudaExec exec;
  const auto prompt = kShape.ids(tokens);
  DeviceTensor<float, 2> logits({1, kShape.vocab});
  for (auto _ : state) {
    Model::Cache cache = model().new_cache(tokens, DType::bf16);
    Model::Cache* const caches[] = {&cache};
    exec.synchronize();
    const auto start = Clock::now();
    model().prefill(prompt, {}, caches, logits.view(), exec);
    exec.synchronize();
    state.SetIterationTime(seconds_since(start));
  }
  check(logits);
  bench::report_cuda(state, kShape.prefill_flops(tokens, model().size().matmul_parameters), 0);
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsIterationInvariantRate);
}

// One token of each of N sequences.
void decode(benchmark::State& state, Index sequences) {
  CudaExec exec;
  const auto prompt = kShape.ids(kStart), next = kShape.ids(sequences);
  DeviceTensor<float, 2> logits({sequences, kShape.vocab});
  std::vector<Model::Cache> caches;
  std::vector<Model::Cache*> pointers;
  for (Index n = 0; n < sequences; ++n) caches.push_back(model().new_cache(kCapacity, DType::bf16));
  for (Model::Cache& cache : caches) {
    pointers.push_back(&cache);
    model().prefill(prompt, {}, std::span(&pointers.back(), 1), logits.view().slice(0, 0, 1), exec);
  }
  CudaGraph graph;
  double host = 0;  // until the graph is queued
  auto step = [&] {
    const auto start = Clock::now();
    graph.run(exec, [&] { model().decode(next, pointers, logits.view(), exec); });
    host = seconds_since(start);
    exec.synchronize();
  };
  for (int i = 0; i < 4; ++i) step();
  Index steps = 0, positions = 0;
  double host_seconds = 0;
  for (auto _ : state) {
    if (caches[0].position() == kCapacity) {
      state.SkipWithError("the caches are full");
      break;
    }
    positions += caches[0].position(), ++steps;
    const auto start = Clock::now();
    step();
    state.SetIterationTime(seconds_since(start));
    host_seconds += host;
    if (graph.last() != CudaGraph::Run::replayed) {
      state.SkipWithError("a step was not replayed");
      break;
    }
  }
  check(logits);
  const double n = static_cast<double>(sequences);
  const double mean = steps > 0 ? static_cast<double>(positions) / static_cast<double>(steps) : 0;
  bench::report_cuda(
      state, 0,
      static_cast<double>(model().size().bytes_per_token) + n * kShape.cache_bytes(mean, sizeof(bf16)));
  state.counters["tokens/s"] = benchmark::Counter(n, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["host_ms"] = 1e3 * host_seconds / static_cast<double>(std::max<Index>(steps, 1));
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  return bench::run_on_device(argc, argv, benchmark::kMillisecond, [](auto add) {
    for (Index sequences : {1, 8, 64})
      add(concat("decode/", kShape.name, "/N:", sequences),
          [=](benchmark::State& s) { decode(s, sequences); });
    for (Index tokens : {512, 4096})
      add(concat("prefill/", kShape.name, "/T:", tokens), [=](benchmark::State& s) { prefill(s, tokens); });
  });
}
