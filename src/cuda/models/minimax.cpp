// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/minimax.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_minimax;
const CudaModel cuda_model_minimax{"minimax", load_minimax<CudaExec>};

}  // namespace v0
}  // namespace ashlar
