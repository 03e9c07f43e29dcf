// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/llama.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_llama;
const CudaModel cuda_model_llama{"llama", load_llama<CudaExec>};

}  // namespace v0
}  // namespace ashlar
