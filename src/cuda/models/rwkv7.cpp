// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/rwkv7.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_rwkv7;
const CudaModel cuda_model_rwkv7{"rwkv7", load_rwkv7<CudaExec>};

}  // namespace v0
}  // namespace ashlar
