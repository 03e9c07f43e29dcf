// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime_api.h>

#include <stdexcept>

#include "ashlar/cuda/cuda_exec.hpp"

namespace ashlar::bench {

// Time on the device between what is queued before and behind.
class CudaEvents {
 public:
  explicit CudaEvents(CudaExec& exec) : exec_(&exec) {
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
  }
  CudaEvents(const CudaEvents&) = delete;
  CudaEvents& operator=(const CudaEvents&) = delete;
  ~CudaEvents() { cudaEventDestroy(begin_), cudaEventDestroy(end_); }

  template <class F>
  double seconds(F&& f) {
    check(cudaEventRecord(begin_, exec_->stream()));
    f();
    check(cudaEventRecord(end_, exec_->stream()));
    check(cudaEventSynchronize(end_));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds / 1e3;
  }

 private:
  static void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
  }
  CudaExec* exec_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace ashlar::bench
