// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/peak.hpp"
#include "ashlar/cuda/graph.hpp"
#include "ashlar/cuda/load.hpp"
#include "ashlar/cuda/peak.hpp"
#include "ashlar/models/load.hpp"

namespace ashlar {

// Where a language model runs: its execution context, how a step of decoding is run (on a device as a graph)
// and waited for.
struct OnCpu {
  using Exec = CpuExec;
  static constexpr DType kKeyValues = DType::f32;
  explicit OnCpu(int threads) : exec({threads}) {}
  template <class F>
  void step(F&& f) {
    f();
  }
  void wait() {}
  double bandwidth() { return measure_read_bandwidth(exec); }
  std::string name() { return concat(exec.threads(), " threads"); }
  CpuExec exec;
};
struct OnCuda {
  using Exec = CudaExec;
  static constexpr DType kKeyValues = DType::bf16;
  explicit OnCuda(int) {}
  template <class F>
  void step(F&& f) {
    graph.run(exec, f);
  }
  void wait() { exec.synchronize(); }
  double bandwidth() { return measure_copy_bandwidth(exec); }
  std::string name() { return "CUDA"; }
  CudaExec exec;
  CudaGraph graph;
};

}  // namespace ashlar
