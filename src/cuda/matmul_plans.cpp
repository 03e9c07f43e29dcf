// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <string>

#include "src/cuda/dense.hpp"
#include "src/cuda/launch.hpp"
#include "src/cuda/resources.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error("CudaError", concat("dense: cuBLASLt: ", cublasLtGetStatusString(status)));
}

// Bytes that divide an address, up to 256.
std::uint32_t alignment(const void* p) {
  const auto bits = reinterpret_cast<std::uintptr_t>(p) | 256;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

}  // namespace

struct MatmulPlans::Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool found = false;

  ~Plan() {
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
    for (auto layout : {weight, x, out})
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
  }
};

// Column by column, as cuBLAS sees it, out^T [n, m] = W [n, k] x^T [k, m].
bool MatmulPlans::run(const Problem& p, CudaExec& exec) {
  detail::CudaResources& r = exec.resources();
  const Key key{p.m,
                p.n,
                p.k,
                p.x_stride,
                p.weight_stride,
                p.out_stride,
                Index{p.is_bf16} + 2 * Index{p.accumulate} + 4 * Index{p.bias != nullptr},
                alignment(p.x),
                alignment(p.weight),
                alignment(p.out),
                alignment(p.bias)};
  std::shared_ptr<Plan>& plan = plans_[key];
  if (plan == nullptr) {
    plan = std::make_shared<Plan>();
    check(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof transposed));
    if (p.bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      const cudaDataType_t type = CUDA_R_32F;
      check(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                           sizeof epilogue));
      check(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type,
                                           sizeof type));
    }
    const cudaDataType_t type = p.is_bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const auto extent = [](Index n) { return static_cast<std::uint64_t>(n); };
    check(cublasLtMatrixLayoutCreate(&plan->weight, type, extent(p.k), extent(p.n), p.weight_stride));
    check(cublasLtMatrixLayoutCreate(&plan->x, type, extent(p.k), extent(p.m), p.x_stride));
    check(cublasLtMatrixLayoutCreate(&plan->out, CUDA_R_32F, extent(p.n), extent(p.m), p.out_stride));
    cublasLtMatmulPreference_t preference;
    check(cublasLtMatmulPreferenceCreate(&preference));
    const std::pair<cublasLtMatmulPreferenceAttributes_t, const void*> addresses[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.weight},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.x},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.out},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.out}};
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &r.cublas_workspace_bytes, sizeof r.cublas_workspace_bytes);
    for (const auto& [attribute, address] : addresses) {
      const std::uint32_t bytes = alignment(address);
      cublasLtMatmulPreferenceSetAttribute(preference, attribute, &bytes, sizeof bytes);
    }
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        r.cublas, plan->product, plan->weight, plan->x, plan->out, plan->out, preference, 1, &result, &found);
    cublasLtMatmulPreferenceDestroy(preference);
    plan->found = status == CUBLAS_STATUS_SUCCESS && found == 1;
    plan->algorithm = result.algo;
  }
  if (!plan->found) {
    if (p.bias != nullptr) return false;
    throw Error("CudaError", concat("dense: cuBLASLt has no kernel for a product of ", p.m, " x ", p.k,
                                    " with ", p.n, " x ", p.k));
  }
  launch_call(exec, "dense",
              std::array<Index, 11>{reinterpret_cast<Index>(p.x), reinterpret_cast<Index>(p.weight),
                                    reinterpret_cast<Index>(p.out), reinterpret_cast<Index>(p.bias), p.m, p.n,
                                    p.k, p.x_stride, p.weight_stride, p.out_stride, Index{p.accumulate}},
              [plan, p, &r] {
                const float one = 1, beta = p.accumulate ? 1 : 0;
                if (p.bias != nullptr)
                  check(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                       &p.bias, sizeof p.bias));
                check(cublasLtMatmul(r.cublas, plan->product, &one, p.weight, plan->weight, p.x, plan->x,
                                     &beta, p.out, plan->out, p.out, plan->out, &plan->algorithm,
                                     r.cublas_workspace, r.cublas_workspace_bytes, r.stream));
              });
  return true;
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
