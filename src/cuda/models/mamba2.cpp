// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/mamba2.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_mamba2;
const CudaModel cuda_model_mamba2{"mamba2", load_mamba2<CudaExec>};

}  // namespace v0
}  // namespace ashlar
