// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gated_deltaproduct.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_gated_deltaproduct;
const CudaModel cuda_model_gated_deltaproduct{"gated_deltaproduct", load_gated_deltaproduct<CudaExec>};

}  // namespace v0
}  // namespace ashlar
