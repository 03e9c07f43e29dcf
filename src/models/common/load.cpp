// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/load.hpp"

#include "src/models/common/decoder_types.hpp"
#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

std::unique_ptr<DecoderLm<CpuExec>> load_decoder_lm(const Value& config, const Parameters& parameters,
                                                    CpuExec& exec) {
  return decoder_model(models(), config).decoder_lm(config, parameters, exec);
}

std::vector<std::string> decoder_lm_types() { return decoder_types(models()); }

}  // namespace v0
}  // namespace ashlar
