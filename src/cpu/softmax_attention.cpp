// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/softmax_attention.hpp"
namespace ashlar {
inline namespace v0 {
void softmax_attention(const SoftmaxAttention& a, CpuExec&) { ref::softmax_attention<float>(a); }
}  // namespace v0
}  // namespace ashlar
