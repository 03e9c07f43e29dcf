// SPDX-License-Identifier: Apache-2.0
// Prefill of softmax attention on the device, bf16, timed by its events. Before a case is timed some of its
// rows are compared with the equation in double. Flops are of visible pairs alone: the peak_fraction of a
// window divided by that of the causal case of the same size is its time in proportion to its pairs.
#include <cuda_runtime_api.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "ashlar/cuda/ops.hpp"
#include "bench/cuda_peak.hpp"

namespace ashlar {
namespace {

struct Case {
  std::string name;
  Index tokens, sequences = 1, heads = 16, kv_heads = 16, dim = 128, value_dim = 128;
  AttentionPattern pattern{};
  float soft_cap = 0;

  Index first_key(Index i) const { return pattern.left >= 0 ? std::max<Index>(0, i - pattern.left) : 0; }
  Index last_key(Index i) const { return pattern.causal ? i + 1 : tokens; }
  double flops() const {
    double pairs = 0;
    for (Index i = 0; i < tokens; ++i) pairs += static_cast<double>(last_key(i) - first_key(i));
    return 2 * pairs * static_cast<double>(sequences * heads * (dim + value_dim));
  }
};

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

struct Event {
  Event() { check(cudaEventCreate(&event)); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t event{};
};

// Uniform, of variance 1.
Tensor<bf16, 3> random(const std::array<Index, 3>& shape, std::uint64_t state) {
  Tensor<bf16, 3> t(shape);
  for (Index i = 0; i < t.size(); ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    t.data()[i] = bf16(static_cast<float>(static_cast<std::int32_t>(state >> 32)) * 0x1.bb67aep-31f);
  }
  return t;
}

// Some rows of the output, of the first and the last sequence, against the equation.
double error_of(const Case& c, const Tensor<bf16, 3>& q, const Tensor<bf16, 3>& k, const Tensor<bf16, 3>& v,
                const Tensor<bf16, 3>& out) {
  double difference = 0, norm = 0;
  std::vector<double> p(static_cast<std::size_t>(c.tokens));
  for (Index n = 0; n < c.sequences; n += std::max<Index>(1, c.sequences - 1))
    for (Index at : {Index{0}, c.tokens / 3, c.tokens / 2 + 1, c.tokens - 1})
      for (Index h : {Index{0}, c.heads - 1}) {
        const Index base = n * c.tokens, kv = h / (c.heads / c.kv_heads);
        double largest = -INFINITY, sum = 0;
        for (Index j = c.first_key(at); j < c.last_key(at); ++j) {
          double s = 0;
          for (Index e = 0; e < c.dim; ++e)
            s += static_cast<double>(static_cast<float>(q.view()(base + at, h, e))) *
                 static_cast<double>(static_cast<float>(k.view()(base + j, kv, e)));
          s /= std::sqrt(static_cast<double>(c.dim));
          if (c.soft_cap != 0) s = c.soft_cap * std::tanh(s / c.soft_cap);
          largest = std::max(largest, p[static_cast<std::size_t>(j)] = s);
        }
        for (Index j = c.first_key(at); j < c.last_key(at); ++j) {
          double& x = p[static_cast<std::size_t>(j)];
          sum += x = std::exp(x - largest);
        }
        for (Index e = 0; e < c.value_dim; ++e) {
          double o = 0;
          for (Index j = c.first_key(at); j < c.last_key(at); ++j)
            o += p[static_cast<std::size_t>(j)] *
                 static_cast<double>(static_cast<float>(v.view()(base + j, kv, e)));
          const double d = static_cast<double>(static_cast<float>(out.view()(base + at, h, e))) - o / sum;
          difference += d * d, norm += o / sum * (o / sum);
        }
      }
  return std::sqrt(difference / norm);
}

void prefill(benchmark::State& state, const Case& c) {
  CudaExec exec;
  const Index rows = c.sequences * c.tokens;
  const auto q = random({rows, c.heads, c.dim}, 1), k = random({rows, c.kv_heads, c.dim}, 2),
             v = random({rows, c.kv_heads, c.value_dim}, 3);
  const DeviceTensor<bf16, 3> dq(q.view()), dk(k.view()), dv(v.view());
  DeviceTensor<bf16, 3> out({rows, c.heads, c.value_dim});
  std::vector<Index> offsets;
  std::vector<KeyValueArgs<bf16>> sequences;
  for (Index n = 0; n <= c.sequences; ++n) offsets.push_back(n * c.tokens);
  for (Index first = 0; first < rows; first += c.tokens)
    sequences.push_back(
        {.k = dk.view().slice(0, first, first + c.tokens), .v = dv.view().slice(0, first, first + c.tokens)});
  const SoftmaxAttentionArgs<float, bf16, bf16, bf16> args{.q = dq.view(),
                                                           .offsets = offsets,
                                                           .sequences = sequences,
                                                           .out = out.view(),
                                                           .pattern = c.pattern,
                                                           .score = {.soft_cap = c.soft_cap}};
  softmax_attention(args, exec);
  exec.synchronize();
  if (const double error = error_of(c, q, k, v, out.to_host()); !(error < 1e-2))
    return state.SkipWithError(concat("differs from the equation by ", error).c_str());
  const Event begin, end;
  for (auto _ : state) {
    check(cudaEventRecord(begin.event, exec.stream()));
    softmax_attention(args, exec);
    check(cudaEventRecord(end.event, exec.stream()));
    check(cudaEventSynchronize(end.event));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin.event, end.event));
    state.SetIterationTime(static_cast<double>(milliseconds) / 1e3);
  }
  bench::report_cuda(state, c.flops(), 0);
  state.counters["TFLOP/s"] =
      benchmark::Counter(c.flops() / 1e12, benchmark::Counter::kIsIterationInvariantRate);
}

std::vector<Case> cases() {
  constexpr AttentionPattern kFull{}, kCausal{.causal = true};
  std::vector<Case> all;
  auto add = [&](const char* kind, Case c) {
    c.name = concat("prefill/", kind, "/d:", c.dim, c.value_dim != c.dim ? concat(":", c.value_dim) : "",
                    "/T:", c.tokens, "/N:", c.sequences, "/heads:", c.heads, ":", c.kv_heads);
    all.push_back(std::move(c));
  };
  for (Index d : {64, 96, 128, 256}) {
    add("causal", {.tokens = 16384, .dim = d, .value_dim = d, .pattern = kCausal});
    add("full", {.tokens = 16384, .dim = d, .value_dim = d, .pattern = kFull});
  }
  add("causal", {.tokens = 16384, .dim = 192, .value_dim = 128, .pattern = kCausal});
  add("causal", {.tokens = 16384, .heads = 32, .kv_heads = 8, .pattern = kCausal});
  for (Index d : {64, 128}) {
    add("causal", {.tokens = 1024, .sequences = 16, .dim = d, .value_dim = d, .pattern = kCausal});
    add("full", {.tokens = 1024, .sequences = 16, .dim = d, .value_dim = d, .pattern = kFull});
    for (Index tokens : {4096, 512})
      add("causal", {.tokens = tokens, .dim = d, .value_dim = d, .pattern = kCausal});
  }
  for (Index window : {1024, 4096})
    add(concat("window:", window).c_str(),
        {.tokens = 16384, .pattern = AttentionPattern::causal_window(window)});
  add("capped", {.tokens = 16384, .pattern = kCausal, .soft_cap = 50});
  return all;
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  return bench::run_on_device(argc, argv, benchmark::kMillisecond, [](auto add) {
    for (const Case& c : cases()) add(c.name, [c](benchmark::State& s) { prefill(s, c); });
  });
}
