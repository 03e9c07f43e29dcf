// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/lfm2.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_lfm2;
const CudaModel cuda_model_lfm2{"lfm2", load_lfm2<CudaExec>};

}  // namespace v0
}  // namespace ashlar
