// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {

bool attention_sm90_takes(const AttentionCall&, const CudaExec&) { return false; }
void attention_sm90(const AttentionCall&, CudaExec&) {}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
