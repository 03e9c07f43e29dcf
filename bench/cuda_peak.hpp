// SPDX-License-Identifier: Apache-2.0
// What a benchmark on the device says of its speed: peak_fraction is its useful flops over the rate of a bf16
// matrix product, or its unavoidable bytes over the bandwidth of a copy, both measured in this process.
#pragma once
#include <benchmark/benchmark.h>

#include <cstdio>
#include <string>

#include "ashlar/cuda/peak.hpp"

namespace ashlar::bench {

struct CudaPeaks {
  double flops, bytes;  // a second
};

inline const CudaPeaks& cuda_peaks() {
  static const CudaPeaks peaks = [] {
    CudaExec exec;
    return CudaPeaks{measure_matrix_rate(exec), measure_copy_bandwidth(exec)};
  }();
  return peaks;
}

// The work of one iteration, timed by hand (UseManualTime); the larger fraction counts.
inline void report_cuda(benchmark::State& state, double flops, double bytes) {
  using benchmark::Counter;
  const auto rate = Counter::kIsIterationInvariantRate;
  if (flops > 0) state.counters["flops"] = Counter(flops, rate);
  if (bytes > 0) state.counters["bytes"] = Counter(bytes, rate);
  state.counters["peak_fraction"] =
      Counter(std::max(flops / cuda_peaks().flops, bytes / cuda_peaks().bytes), rate);
}

// The main function of a benchmark on the device: add(register_case) calls register_case(name, f) for each
// case. Skipped with a sentence where there is no device; the peaks are printed behind the cases.
template <class Add>
int run_on_device(int argc, char** argv, benchmark::TimeUnit unit, Add&& add) {
  if (std::string why; !cuda_available(&why)) {
    std::printf("skipped: %s\n", why.c_str());
    return 0;
  }
  add([unit](const std::string& name, auto f) {
    benchmark::RegisterBenchmark(name.c_str(), f)->UseManualTime()->Unit(unit);
  });
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  std::fprintf(stderr, "matrix rate %.1f TFLOP/s, copy %.3f TB/s\n", cuda_peaks().flops / 1e12,
               cuda_peaks().bytes / 1e12);
  return 0;
}

}  // namespace ashlar::bench
