// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gemma.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_gemma3;
const CudaModel cuda_model_gemma3{"gemma3", load_gemma3<CudaExec>, {"gemma3_text"}};

}  // namespace v0
}  // namespace ashlar
