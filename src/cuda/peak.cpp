// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/peak.hpp"

#include <algorithm>
#include <vector>

#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/cuda/ops.hpp"
#include "src/cuda/launch.hpp"
#include "src/cuda/resources.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// Median seconds of `f`, by the device's clock.
template <class F>
double median_seconds(CudaExec& exec, int rounds, F&& f) {
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin), "measure");
  check_cuda(cudaEventCreate(&end), "measure");
  std::vector<float> times;
  for (int i = -2; i < rounds; ++i) {
    check_cuda(cudaEventRecord(begin, exec.stream()), "measure");
    f();
    check_cuda(cudaEventRecord(end, exec.stream()), "measure");
    check_cuda(cudaEventSynchronize(end), "measure");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end), "measure");
    if (i >= 0) times.push_back(milliseconds);
  }
  cudaEventDestroy(begin), cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return times[static_cast<std::size_t>(rounds / 2)] / 1e3;
}

constexpr int kRounds = 15;

}  // namespace

double measure_copy_bandwidth(CudaExec& exec) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  DeviceTensor<std::byte, 1> from({static_cast<Index>(kBytes)}), to({static_cast<Index>(kBytes)});
  const double seconds = median_seconds(exec, kRounds, [&] {
    check_cuda(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, exec.stream()),
               "measure_copy_bandwidth");
  });
  return 2 * static_cast<double>(kBytes) / seconds;
}

double measure_matrix_rate(CudaExec& exec) {
  constexpr Index kSize = 8192;
  // Random bits of small numbers: zeros would run at a higher clock.
  Tensor<bf16, 2> host({kSize, kSize});
  std::uint64_t state = 1;
  for (Index i = 0; i < host.size(); ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    host.data()[i] = bf16(static_cast<float>(static_cast<std::int32_t>(state >> 32)) * 0x1p-31f);
  }
  const DeviceTensor<bf16, 2> a(std::as_const(host).view());
  DeviceTensor<float, 2> c({kSize, kSize});
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t in, out;
  cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
  cublasLtMatrixLayoutCreate(&in, CUDA_R_16BF, kSize, kSize, kSize);
  cublasLtMatrixLayoutCreate(&out, CUDA_R_16BF, kSize, kSize, kSize);
  const float one = 1, zero = 0;
  detail::CudaResources& r = exec.resources();
  bool ok = true;
  const double seconds = median_seconds(exec, kRounds, [&] {
    ok = ok && cublasLtMatmul(r.cublas, product, &one, a.data(), in, a.data(), in, &zero, c.data(), out,
                              c.data(), out, nullptr, r.cublas_workspace, r.cublas_workspace_bytes,
                              exec.stream()) == CUBLAS_STATUS_SUCCESS;
  });
  cublasLtMatrixLayoutDestroy(in), cublasLtMatrixLayoutDestroy(out), cublasLtMatmulDescDestroy(product);
  if (!ok) throw Error("CudaError", "measure_matrix_rate: cuBLASLt refused the product");
  return 2 * static_cast<double>(kSize) * kSize * kSize / seconds;
}

}  // namespace v0
}  // namespace ashlar
