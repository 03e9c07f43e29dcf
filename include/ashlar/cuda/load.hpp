// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "ashlar/cuda/backend.hpp"
#include "ashlar/cuda/ops.hpp"
#include "ashlar/models/decoder_lm.hpp"

namespace ashlar {
inline namespace v0 {

extern template class DecoderCache<CudaExec>;
extern template class DecoderLm<CudaExec>;

// As load_decoder_lm (models/load.hpp), its weights copied to the device, f32 or bf16 as the checkpoint has
// them. Logits are in device memory. A step is recorded by CudaGraph.
std::unique_ptr<DecoderLm<CudaExec>> load_decoder_lm(const Value& config, const Parameters& parameters,
                                                     CudaExec& exec);

// The values of "model_type" that it knows.
std::vector<std::string> cuda_decoder_lm_types();

}  // namespace v0
}  // namespace ashlar
