// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/kimi_linear.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_kimi_linear;
const CudaModel cuda_model_kimi_linear{"kimi_linear", load_kimi_linear<CudaExec>};

}  // namespace v0
}  // namespace ashlar
