// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/qwen3_next.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_qwen3_next;
const CudaModel cuda_model_qwen3_next{"qwen3_next", load_qwen3_next<CudaExec>};

}  // namespace v0
}  // namespace ashlar
