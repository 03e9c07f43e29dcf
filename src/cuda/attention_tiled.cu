// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {

bool attention_tiled_takes(const AttentionCall&) { return false; }
void attention_tiled(const AttentionCall&, CudaExec&) {}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
