// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/cpu_exec.hpp"

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

}  // namespace v0
}  // namespace ashlar
