// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/load.hpp"
#include "ashlar/models/decoder_lm-inl.hpp"

namespace ashlar {
inline namespace v0 {

template class DecoderCache<CudaExec>;
template class DecoderLm<CudaExec>;

}  // namespace v0
}  // namespace ashlar
