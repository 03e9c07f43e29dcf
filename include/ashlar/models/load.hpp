// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "ashlar/models/decoder_lm.hpp"

namespace ashlar {
inline namespace v0 {

// The decoder language model of a config.json and its tensors, by "model_type". The model keeps what it needs
// of the tensors' memory. Error("UnknownModel") lists the known types.
std::unique_ptr<DecoderLm<CpuExec>> load_decoder_lm(const Value& config, const Parameters& parameters,
                                                    CpuExec& exec);

// The values of "model_type" that load_decoder_lm knows.
std::vector<std::string> decoder_lm_types();

}  // namespace v0
}  // namespace ashlar
