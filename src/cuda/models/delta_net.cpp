// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/delta_net.hpp"

#include "src/cuda/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const CudaModel cuda_model_delta_net;
const CudaModel cuda_model_delta_net{"delta_net", load_delta_net<CudaExec>};

}  // namespace v0
}  // namespace ashlar
