// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/qwen3_5.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_qwen3_5;
const CudaModel cuda_model_qwen3_5{
    "qwen3_5", load_qwen3_5<CudaExec>, {"qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"}};

}  // namespace v0
}  // namespace ashlar
