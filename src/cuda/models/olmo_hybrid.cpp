// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/olmo_hybrid.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_olmo_hybrid;
const CudaModel cuda_model_olmo_hybrid{"olmo_hybrid", load_olmo_hybrid<CudaExec>};

}  // namespace v0
}  // namespace ashlar
