// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// What this machine can do with the threads and instruction set of a context, a second.
struct Peak {
  double fma_flops = 0;   // f32 multiply-adds from registers, two flops each
  double read_bytes = 0;  // streaming reads of memory far larger than the caches
  double copy_bytes = 0;  // reads plus writes of an update in place of such memory
};

// Measured now, the best of several short runs: about half a second and 128 MiB.
Peak measure_peak(CpuExec& exec);

// read_bytes alone: about 0.1 s.
double measure_read_bandwidth(CpuExec& exec);

// Single passes over 128 MiB, a part a worker: what to compare with in turns, where a shared machine's
// bandwidth changes from one moment to the next.
class MemoryPasses {
 public:
  explicit MemoryPasses(CpuExec& exec);
  double read();    // bytes a second
  double update();  // in place: bytes read and written, a second

 private:
  CpuExec& exec_;
  Tensor<float, 1> memory_;
};

}  // namespace v0
}  // namespace ashlar
