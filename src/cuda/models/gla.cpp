// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gla.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_gla;
const CudaModel cuda_model_gla{"gla", load_gla<CudaExec>};

}  // namespace v0
}  // namespace ashlar
