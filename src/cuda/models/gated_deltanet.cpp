// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gated_deltanet.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_gated_deltanet;
const CudaModel cuda_model_gated_deltanet{"gated_deltanet", load_gated_deltanet<CudaExec>};

}  // namespace v0
}  // namespace ashlar
