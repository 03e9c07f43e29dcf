// SPDX-License-Identifier: Apache-2.0
// What a device is measured against.
#pragma once
#include "ashlar/cuda/cuda_exec.hpp"

namespace ashlar {
inline namespace v0 {

// Bytes read and written a second by a copy of 1 GiB within the device's memory: the median of several.
double measure_copy_bandwidth(CudaExec& exec);

// Flops a second of a product of random bf16 matrices, 8192 x 8192 x 8192, summed in f32 (cuBLASLt): the
// median of several.
double measure_matrix_rate(CudaExec& exec);

}  // namespace v0
}  // namespace ashlar
