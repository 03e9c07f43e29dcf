// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/launch.hpp"

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "src/cuda/recording.hpp"
#include "src/cuda/resources.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// More than 48 KiB of shared memory has to be asked for, the most that a kernel has had on a device; static
// memory, which counts too, is little.
void allow_shared(const void* kernel, std::size_t bytes, int device, const char* op) {
  constexpr std::size_t kUsual = 40 << 10;
  if (bytes <= kUsual) return;
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, std::size_t> allowed;
  const std::lock_guard lock(mutex);
  std::size_t& most = allowed[{kernel, device}];
  if (bytes <= most) return;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), op);
  most = bytes;
}

void after(CudaExec& exec, const char* op) {
  if (exec.resources().synchronous && exec.resources().recording == nullptr)
    check_cuda(cudaStreamSynchronize(exec.stream()), op);
}

}  // namespace

namespace detail {

void issue_kernel(CudaExec& exec, const char* op, const void* kernel, const LaunchShape& shape,
                  std::span<void* const> arguments) {
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid, config.blockDim = shape.block, config.dynamicSmemBytes = shape.shared;
  config.stream = exec.stream(), config.attrs = attributes;
  if (shape.overlaps && exec.capability() >= 90) {
    auto& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster.x * shape.cluster.y * shape.cluster.z > 1) {
    auto& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeClusterDimension;
    a.val.clusterDim.x = shape.cluster.x, a.val.clusterDim.y = shape.cluster.y;
    a.val.clusterDim.z = shape.cluster.z;
  }
  check_cuda(cudaLaunchKernelExC(&config, kernel, const_cast<void**>(arguments.data())), op);
}

void launch_kernel(CudaExec& exec, const char* op, const void* kernel, const LaunchShape& shape,
                   std::span<void* const> arguments, std::span<const std::size_t> sizes) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  allow_shared(kernel, shape.shared, exec.resources().device, op);
  if (Recording* recording = exec.resources().recording)
    return recording->kernel(exec, op, kernel, shape, arguments, sizes);
  issue_kernel(exec, op, kernel, shape, arguments);
  after(exec, op);
}

}  // namespace detail

namespace cuda {
void trace(const CudaExec& exec, std::string_view op, std::string_view kernel, const std::string& shape) {
  if (exec.verbose())
    std::fprintf(stderr, "ashlar: %.*s %s: %.*s on CUDA %d.%d\n", static_cast<int>(op.size()), op.data(),
                 shape.c_str(), static_cast<int>(kernel.size()), kernel.data(), exec.capability() / 10,
                 exec.capability() % 10);
}
}  // namespace cuda

void launch_call(CudaExec& exec, const char* op, std::span<const std::byte> signature,
                 const std::function<void()>& call) {
  if (detail::Recording* recording = exec.resources().recording)
    return recording->call(exec, op, signature, call);
  call();
  after(exec, op);
}

void upload(CudaExec& exec, const char* op, const void* host, std::size_t bytes, void* to) {
  if (bytes == 0) return;
  if (detail::Recording* recording = exec.resources().recording)
    return recording->upload(exec, op, host, bytes, to);
  if (bytes > detail::UploadRing::kBytes / 2) {
    check_cuda(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, exec.stream()), op);
    check_cuda(cudaStreamSynchronize(exec.stream()), op);
    return;
  }
  std::byte* const staged = exec.resources().uploads.take(bytes, exec.stream());
  std::memcpy(staged, host, bytes);
  check_cuda(cudaMemcpyAsync(to, staged, bytes, cudaMemcpyHostToDevice, exec.stream()), op);
  after(exec, op);
}

void download(CudaExec& exec, const char* op, const void* from, std::size_t bytes, void* host) {
  if (detail::Recording* recording = exec.resources().recording) recording->give_up(exec);
  if (bytes != 0) check_cuda(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, exec.stream()), op);
  check_cuda(cudaStreamSynchronize(exec.stream()), op);
}

}  // namespace v0
}  // namespace ashlar
