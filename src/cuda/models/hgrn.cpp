// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hgrn.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_hgrn;
const CudaModel cuda_model_hgrn{"hgrn", load_hgrn<CudaExec>};

}  // namespace v0
}  // namespace ashlar
