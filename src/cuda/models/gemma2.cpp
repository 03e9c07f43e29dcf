// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gemma.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_gemma2;
const CudaModel cuda_model_gemma2{"gemma2", load_gemma2<CudaExec>};

}  // namespace v0
}  // namespace ashlar
