// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hgrn2.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_hgrn2;
const CudaModel cuda_model_hgrn2{"hgrn2", load_hgrn2<CudaExec>};

}  // namespace v0
}  // namespace ashlar
