// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/kda.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_kda;
const CudaModel cuda_model_kda{"kda", load_kda<CudaExec>};

}  // namespace v0
}  // namespace ashlar
