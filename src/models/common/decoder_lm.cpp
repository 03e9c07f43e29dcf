// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/decoder_lm-inl.hpp"

namespace ashlar {
inline namespace v0 {

template class DecoderCache<CpuExec>;
template class DecoderLm<CpuExec>;

}  // namespace v0
}  // namespace ashlar
