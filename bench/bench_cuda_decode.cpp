// SPDX-License-Identifier: Apache-2.0
// Attention of single queries to long caches on the device, bf16: bound by the memory that keys and values
// are read from. Each run has a copy of 1 GiB before it, in the same queue: it takes what caches hold, covers
// the host's time, and peak_fraction is the bandwidth over that of these copies. Before a case is timed some
// of its rows are compared with the equation in double.
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/cuda/ops.hpp"
#include "bench/cuda_peak.hpp"

namespace ashlar {
namespace {

enum class Layout { heads, tokens, ring, pages16, pages64 };  // [heads][rows][dim], the others by token

struct Case {
  Index sequences, keys, heads = 32, kv_heads = 8, dim = 128, value_dim = 128;
  Layout layout = Layout::heads;
  Index queries = 1, left = -1;

  Index page() const { return layout == Layout::pages16 ? 16 : layout == Layout::pages64 ? 64 : 0; }
  Index key_elements() const { return keys * kv_heads * dim; }
  Index elements() const { return keys * kv_heads * (dim + value_dim); }  // of a sequence
  Index seen() const { return left < 0 ? keys : std::min(keys, left + queries); }
  double bytes() const {
    return 2.0 * static_cast<double>(sequences) *
           static_cast<double>(seen() * kv_heads * (dim + value_dim) + queries * heads * (dim + value_dim));
  }
};

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

// Element i of all caches is noise()[i % kPeriod].
constexpr Index kPeriod = (Index{1} << 24) + 8 * 1009;
const Tensor<bf16, 1>& noise() {
  static const Tensor<bf16, 1> all = [] {
    Tensor<bf16, 1> t({kPeriod});
    std::mt19937 rng(1);
    std::uniform_real_distribution<float> u(-1.7f, 1.7f);
    for (Index i = 0; i < kPeriod; ++i) t.data()[i] = bf16(u(rng));
    return t;
  }();
  return all;
}

// Arrays of a case: several sets of caches, so that they are larger than the last cache.
class Caches {
 public:
  explicit Caches(const Case& c)
      : c_(c),
        sets_(std::max<Index>(1, (Index{160} << 20) / (c.sequences * c.elements()))),
        pool_({sets_ * c.sequences * c.elements()}) {
    for (Index i = 0; i < pool_.size(); i += kPeriod)
      check(cudaMemcpy(pool_.data() + i, noise().data(),
                       static_cast<std::size_t>(std::min(kPeriod, pool_.size() - i)) * sizeof(bf16),
                       cudaMemcpyHostToDevice));
    if (c.page() != 0) {
      pages_.resize(static_cast<std::size_t>(c.keys / c.page()));
      for (std::size_t i = 0; i < pages_.size(); ++i) pages_[i] = static_cast<Index>(i);
      std::shuffle(pages_.begin(), pages_.end(), std::mt19937(2));
    }
  }
  Index sets() const { return sets_; }
  Index size() const { return pool_.size(); }

  KeyValueArgs<bf16> of(Index set, Index sequence) const {
    const bf16* k = pool_.data() + (set * c_.sequences + sequence) * c_.elements();
    KeyValueArgs<bf16> kv{.k = view(k, c_.dim), .v = view(k + c_.key_elements(), c_.value_dim)};
    if (c_.layout == Layout::ring) kv.ring = true, kv.start = c_.keys / 3, kv.length = c_.keys + c_.keys / 3;
    kv.pages = pages_, kv.page = c_.page();
    return kv;
  }
  double at(const bf16& element) const {
    return static_cast<double>(static_cast<float>(noise().data()[(&element - pool_.data()) % kPeriod]));
  }

 private:
  View<const bf16, 3> view(const bf16* data, Index dim) const {
    if (c_.layout == Layout::heads) return {data, {c_.keys, c_.kv_heads, dim}, {dim, c_.keys * dim, 1}};
    return {data, {c_.keys, c_.kv_heads, dim}};
  }
  Case c_;
  Index sets_;
  DeviceTensor<bf16, 1> pool_;
  std::vector<Index> pages_;
};

// Two heads of the last query of the first and of the last sequence.
double error_of(const Case& c, const Caches& caches, const Tensor<bf16, 3>& q, const Tensor<bf16, 3>& out) {
  double difference = 0, norm = 0;
  for (Index n = 0; n < c.sequences; n += std::max<Index>(1, c.sequences - 1)) {
    const KeyValueArgs<bf16> kv = caches.of(caches.sets() - 1, n);
    for (Index h : {Index{0}, c.heads - 1}) {
      const Index row = (n + 1) * c.queries - 1, kv_head = h / (c.heads / c.kv_heads);
      std::vector<double> o(static_cast<std::size_t>(c.value_dim));
      double sum = 0;
      for (Index j = c.left < 0 ? kv.start : kv.end() - 1 - c.left; j < kv.end(); ++j) {
        const bf16* k = kv.k.data + kv.row(j) * kv.k.strides[0] + kv_head * kv.k.strides[1];
        const bf16* v = kv.v.data + kv.row(j) * kv.v.strides[0] + kv_head * kv.v.strides[1];
        double s = 0;
        for (Index e = 0; e < c.dim; ++e)
          s += static_cast<double>(static_cast<float>(q.view()(row, h, e))) * caches.at(k[e]);
        const double p = std::exp(s / std::sqrt(static_cast<double>(c.dim)));
        sum += p;
        for (Index e = 0; e < c.value_dim; ++e) o[static_cast<std::size_t>(e)] += p * caches.at(v[e]);
      }
      for (Index e = 0; e < c.value_dim; ++e) {
        const double want = o[static_cast<std::size_t>(e)] / sum;
        const double d = static_cast<double>(static_cast<float>(out.view()(row, h, e))) - want;
        difference += d * d, norm += want * want;
      }
    }
  }
  return std::sqrt(difference / norm);
}

void decode(benchmark::State& state, const Case& c) {
  CudaExec exec;
  const Caches caches(c);
  const Index tokens = c.sequences * c.queries;
  Tensor<bf16, 3> q({tokens, c.heads, c.dim});
  std::copy_n(noise().data() + 12345, q.size(), q.data());
  const DeviceTensor<bf16, 3> dq(std::as_const(q).view());
  DeviceTensor<bf16, 3> out({tokens, c.heads, c.value_dim});
  std::vector<Index> offsets;
  for (Index n = 0; n <= c.sequences; ++n) offsets.push_back(n * c.queries);
  std::vector<std::vector<KeyValueArgs<bf16>>> sequences(static_cast<std::size_t>(caches.sets()));
  for (Index set = 0; set < caches.sets(); ++set)
    for (Index n = 0; n < c.sequences; ++n)
      sequences[static_cast<std::size_t>(set)].push_back(caches.of(set, n));
  auto pass = [&] {
    for (const auto& set : sequences)
      softmax_attention(
          SoftmaxAttentionArgs<float, bf16, bf16, bf16>{
              .q = dq.view(),
              .offsets = offsets,
              .sequences = set,
              .out = out.view(),
              .pattern = AttentionPattern::causal_window(c.left + 1)},
          exec);
  };
  pass();
  exec.synchronize();
  if (const double error = error_of(c, caches, q, out.to_host()); !(error < 1e-2))
    return state.SkipWithError(concat("differs from the equation by ", error).c_str());

  constexpr std::size_t kCopy = std::size_t{1} << 30;
  const DeviceTensor<std::byte, 1> from({static_cast<Index>(kCopy)});
  DeviceTensor<std::byte, 1> to({static_cast<Index>(kCopy)});
  cudaEvent_t events[3];
  for (cudaEvent_t& e : events) check(cudaEventCreate(&e));
  const Index passes = static_cast<Index>(
      std::ceil(2 * static_cast<double>(kCopy) / (c.bytes() * static_cast<double>(caches.sets()))));
  double seconds = 0, copy_seconds = 0;
  for (auto _ : state) {
    check(cudaEventRecord(events[0], exec.stream()));
    check(cudaMemcpyAsync(to.data(), from.data(), kCopy, cudaMemcpyDeviceToDevice, exec.stream()));
    check(cudaEventRecord(events[1], exec.stream()));
    for (Index i = 0; i < passes; ++i) pass();
    check(cudaEventRecord(events[2], exec.stream()));
    check(cudaEventSynchronize(events[2]));
    float copy = 0, ours = 0;
    check(cudaEventElapsedTime(&copy, events[0], events[1]));
    check(cudaEventElapsedTime(&ours, events[1], events[2]));
    const double one = static_cast<double>(ours) / 1e3 / static_cast<double>(passes * caches.sets());
    state.SetIterationTime(one);
    seconds += one, copy_seconds += static_cast<double>(copy) / 1e3;
  }
  for (cudaEvent_t e : events) cudaEventDestroy(e);
  const double runs = static_cast<double>(state.iterations());
  const double rate = c.bytes() * runs / seconds;
  const double copy_rate = 2 * static_cast<double>(kCopy) * runs / copy_seconds;
  state.counters["bytes"] = rate, state.counters["copy"] = copy_rate;
  state.counters["peak_fraction"] = rate / copy_rate;
}

std::string name(const Case& c) {
  constexpr const char* layouts[] = {"heads", "tokens", "ring", "pages16", "pages64"};
  std::string s = concat("decode/", layouts[static_cast<int>(c.layout)], "/N:", c.sequences, "/S:", c.keys,
                         "/heads:", c.heads, ":", c.kv_heads, "/d:", c.dim);
  if (c.value_dim != c.dim) s += concat(":", c.value_dim);
  if (c.queries != 1) s += concat("/queries:", c.queries);
  if (c.left >= 0) s += concat("/left:", c.left);
  return s;
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  return bench::run_on_device(argc, argv, benchmark::kMicrosecond, [](auto add) {
    const Case cases[] = {
        {16, 8192},
        {64, 4096},
        {16, 8192, 32, 8, 128, 128, Layout::tokens},
        {64, 4096, 32, 8, 128, 128, Layout::tokens},
        {16, 8192, 32, 8, 128, 128, Layout::ring},
        {16, 8192, 32, 8, 128, 128, Layout::pages16},
        {16, 8192, 32, 8, 128, 128, Layout::pages64},
        {16, 8192, 32, 8, 128, 128, Layout::heads, 4},
        {16, 8192, 32, 8, 128, 128, Layout::heads, 1, 4095},
        {1, 8192},
        {1, 32768},
        {1, 8192, 32, 8, 128, 128, Layout::tokens},
        {1, 32768, 32, 8, 128, 128, Layout::tokens},
        {4, 8192},
        {16, 1024},
        {16, 8192, 32, 8, 64, 64},
        {16, 8192, 32, 8, 96, 96},
        {16, 4096, 16, 16, 128, 128},
        {16, 4096, 16, 8, 192, 128},
        {16, 4096, 16, 8, 256, 256},
        {16, 8192, 16, 2, 128, 128},
    };
    for (const Case& c : cases) add(name(c), [c](benchmark::State& s) { decode(s, c); });
  });
}
