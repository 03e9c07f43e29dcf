// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/olmo3.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_olmo3;
const CudaModel cuda_model_olmo3{"olmo3", load_olmo3<CudaExec>};

}  // namespace v0
}  // namespace ashlar
