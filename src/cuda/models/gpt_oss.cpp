// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gpt_oss.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_gpt_oss;
const CudaModel cuda_model_gpt_oss{"gpt_oss", load_gpt_oss<CudaExec>};

}  // namespace v0
}  // namespace ashlar
