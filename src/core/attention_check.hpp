// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// Refuses what softmax_attention refuses, wherever it runs; what lies in arrays is not looked at.
template <class Kv, class Q, class Out>
void check_attention(const SoftmaxAttentionArgs<float, Kv, Q, Out>& a);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
