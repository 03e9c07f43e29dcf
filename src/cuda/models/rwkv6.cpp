// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/rwkv6.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_rwkv6;
const CudaModel cuda_model_rwkv6{"rwkv6", load_rwkv6<CudaExec>};

}  // namespace v0
}  // namespace ashlar
