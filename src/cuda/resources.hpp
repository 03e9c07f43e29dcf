// SPDX-License-Identifier: Apache-2.0
// What a CudaExec owns.
#pragma once
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <utility>

#include "ashlar/cuda/backend.hpp"
#include "src/core/scratch_stack.hpp"
#include "src/cuda/dense.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// Device memory of a scratch stack.
class DeviceBlock {
 public:
  static constexpr std::size_t kAlign = 256;
  explicit DeviceBlock(std::size_t bytes);
  DeviceBlock(DeviceBlock&& b) noexcept
      : data_(std::exchange(b.data_, nullptr)), size_(std::exchange(b.size_, 0)) {}
  DeviceBlock& operator=(DeviceBlock&&) = delete;
  ~DeviceBlock();
  std::byte* data() { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Page-locked host memory that lists wait in until the device has read them.
class UploadRing {
 public:
  static constexpr std::size_t kBytes = std::size_t{8} << 20;
  UploadRing() = default;
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;
  ~UploadRing();
  // Room for up to kBytes / 2; waits for the stream where the ring is full.
  std::byte* take(std::size_t bytes, CudaStream stream);

 private:
  std::byte* data_ = nullptr;
  std::size_t used_ = 0;
};

class Recording;  // src/cuda/recording.hpp

struct CudaResources {
  int device = 0;
  CudaStream stream = nullptr;
  bool own_stream = false, synchronous = false, verbose = false;
  std::size_t most_shared = 0;  // bytes of shared memory that a block may ask for
  cublasLtHandle_t cublas = nullptr;
  void* cublas_workspace = nullptr;
  std::size_t cublas_workspace_bytes = 0;
  ScratchStack<DeviceBlock> scratch;
  ScratchStack<HostBlock> host_scratch;
  UploadRing uploads;
  cuda::MatmulPlans matmul_plans;
  Backend<CudaExec>::ResidualTarget* residual = nullptr;  // the innermost that there is
  Recording* recording = nullptr;                         // of the graph that runs, if one does

  ~CudaResources();
};

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
