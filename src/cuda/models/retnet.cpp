// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/retnet.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_retnet;
const CudaModel cuda_model_retnet{"retnet", load_retnet<CudaExec>};

}  // namespace v0
}  // namespace ashlar
