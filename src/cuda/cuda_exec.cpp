// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/cuda_exec.hpp"

#include <cstdlib>
#include <memory>
#include <string_view>

#include "ashlar/cuda/device_tensor.hpp"
#include "src/cuda/launch.hpp"
#include "src/cuda/resources.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr int kOldest = 80;
constexpr std::size_t kCublasWorkspace = std::size_t{32} << 20;

bool set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, which, device), "CudaExec");
  return value;
}

void check_cublas(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error("CudaError", concat("CudaExec: cuBLASLt: ", cublasLtGetStatusString(status)));
}

}  // namespace

void check_cuda(cudaError_t status, const char* op) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the next call begins anew, where the device can go on at all
  throw Error(status == cudaErrorMemoryAllocation ? "OutOfMemory" : "CudaError",
              concat(op, ": CUDA: ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")"));
}

bool cuda_available(std::string* why) {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices > 0) return true;
  cudaGetLastError();
  if (why != nullptr)
    *why = status == cudaSuccess
               ? "This machine has no CUDA device."
               : concat("This machine has no usable CUDA device: ", cudaGetErrorString(status), ".");
  return false;
}

CudaExec::CudaExec(const CudaOptions& options)
    : precision_(options.precision), verbose_(set("ASHLAR_VERBOSE")) {
  if (std::string why; !cuda_available(&why)) throw Error("NoCuda", concat("CudaExec: ", why));
  int devices = 0;
  check_cuda(cudaGetDeviceCount(&devices), "CudaExec");
  if (options.device < 0 || options.device >= devices)
    refuse("CudaExec", "device is ", options.device, ", expected 0 to ", devices - 1);
  check_cuda(cudaSetDevice(options.device), "CudaExec");
  capability_ = 10 * attribute(cudaDevAttrComputeCapabilityMajor, options.device) +
                attribute(cudaDevAttrComputeCapabilityMinor, options.device);
  if (capability_ < kOldest)
    throw Error("NoCuda", concat("CudaExec: device ", options.device, " has compute capability ",
                                 capability_ / 10, ".", capability_ % 10, ", expected 8.0 or later"));
  processors_ = attribute(cudaDevAttrMultiProcessorCount, options.device);
  auto resources = std::make_unique<detail::CudaResources>();
  resources->device = options.device, resources->stream = options.stream;
  resources->synchronous = set("ASHLAR_CUDA_SYNC"), resources->verbose = verbose_;
  resources->most_shared =
      static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, options.device));
  if (options.stream == nullptr) {
    check_cuda(cudaStreamCreateWithFlags(&resources->stream, cudaStreamNonBlocking), "CudaExec");
    resources->own_stream = true;
  }
  check_cublas(cublasLtCreate(&resources->cublas));
  resources->cublas_workspace_bytes = kCublasWorkspace;
  check_cuda(cudaMalloc(&resources->cublas_workspace, kCublasWorkspace), "CudaExec");
  stream_ = resources->stream;
  resources_ = resources.release();
}

CudaExec::CudaExec(CudaExec&& other) noexcept { *this = std::move(other); }

CudaExec& CudaExec::operator=(CudaExec&& other) noexcept {
  std::swap(stream_, other.stream_), std::swap(resources_, other.resources_);
  precision_ = other.precision_, capability_ = other.capability_, processors_ = other.processors_;
  verbose_ = other.verbose_;
  return *this;
}

CudaExec::~CudaExec() {
  if (resources_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  delete resources_;
}

void CudaExec::synchronize() { check_cuda(cudaStreamSynchronize(stream_), "CudaExec"); }

CudaScratch::CudaScratch(CudaExec& exec) : resources_(exec.resources()) {
  const auto mark = resources_.scratch.enter();
  block_ = mark.block, used_ = mark.used;
}
CudaScratch::~CudaScratch() { resources_.scratch.leave({block_, used_}); }
void* CudaScratch::bytes(Index n) { return resources_.scratch.bytes(n); }

CudaHostScratch::CudaHostScratch(CudaExec& exec) : resources_(exec.resources()) {
  const auto mark = resources_.host_scratch.enter();
  block_ = mark.block, used_ = mark.used;
}
CudaHostScratch::~CudaHostScratch() { resources_.host_scratch.leave({block_, used_}); }
void* CudaHostScratch::bytes(Index n) { return resources_.host_scratch.bytes(n); }

namespace detail {

DeviceBlock::DeviceBlock(std::size_t bytes) : size_(bytes) {
  check_cuda(cudaMalloc(&data_, bytes), "CudaScratch");
}
DeviceBlock::~DeviceBlock() {
  if (data_ != nullptr) cudaFree(data_);  // waits for what is queued
}

UploadRing::~UploadRing() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

std::byte* UploadRing::take(std::size_t bytes, CudaStream stream) {
  if (data_ == nullptr) check_cuda(cudaMallocHost(&data_, kBytes), "CudaExec");
  constexpr std::size_t kAlign = 64;
  const std::size_t need = (bytes + kAlign - 1) / kAlign * kAlign;
  if (used_ + need > kBytes) {
    check_cuda(cudaStreamSynchronize(stream), "CudaExec");
    used_ = 0;
  }
  return data_ + std::exchange(used_, used_ + need);
}

CudaResources::~CudaResources() {
  if (cublas != nullptr) cublasLtDestroy(cublas);
  if (cublas_workspace != nullptr) cudaFree(cublas_workspace);
  if (own_stream) cudaStreamDestroy(stream);
}

void* device_allocate(std::size_t bytes) {
  if (bytes == 0) bytes = 1;
  void* p = nullptr;
  check_cuda(cudaMalloc(&p, bytes), "DeviceTensor");
  try {
    check_cuda(cudaMemset(p, 0, bytes), "DeviceTensor");
    check_cuda(cudaDeviceSynchronize(), "DeviceTensor");
  } catch (const Error&) {
    cudaFree(p);
    throw;
  }
  return p;
}

void device_release(void* p) noexcept {
  if (p != nullptr) cudaFree(p);
}

void device_copy(void* to, const void* from, std::size_t bytes, CopyKind kind) {
  if (bytes == 0) return;
  constexpr cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                      cudaMemcpyDeviceToDevice};
  check_cuda(cudaDeviceSynchronize(), "DeviceTensor");
  check_cuda(cudaMemcpy(to, from, bytes, kinds[static_cast<int>(kind)]), "DeviceTensor");
  check_cuda(cudaDeviceSynchronize(), "DeviceTensor");
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
