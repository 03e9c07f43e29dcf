// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/load.hpp"

#include "src/cuda/models/common/model.hpp"
#include "src/models/common/decoder_types.hpp"

namespace ashlar {
inline namespace v0 {

std::unique_ptr<DecoderLm<CudaExec>> load_decoder_lm(const Value& config, const Parameters& parameters,
                                                     CudaExec& exec) {
  return decoder_model(cuda_models(), config).decoder_lm(config, parameters, exec);
}

std::vector<std::string> cuda_decoder_lm_types() { return decoder_types(cuda_models()); }

}  // namespace v0
}  // namespace ashlar
