// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"

namespace ashlar {
inline namespace v0 {

// Linear attention to whole sequences (Katharopoulos et al., 2020), on features q and k of each head:
//   S = sum_s k_s v_s^T,  z = sum_s k_s,  o_t = S^T q_t / x,  x = q_t z + normalizer_eps
// With a guard g > 0 another 2 g is added to x where |q_t z| <= g (Performer's released code). 2 M Dv
// multiply-adds a token and head; the causal form is linear_attention (ops/linear_mixers.hpp). S is summed in
// parts of 512 keys of a sequence, so that results depend on neither threads nor batch-mates. A sequence
// without keys gives 0 / x. Refused: shapes that differ, H' that does not divide H, key lengths outside of
// their sequence. `out` must not overlap the inputs. Backward needs the inputs, S and z.
template <class T>
struct BidirectionalLinearAttentionArgs {
  View<const T, 3> q;                  // [T, H, M]
  View<const T, 3> k;                  // [T, H', M]
  View<const T, 3> v;                  // [T, H', Dv]
  View<T, 3> out;                      // [T, H, Dv]
  Offsets offsets;                     // of the sequences in the tokens
  std::span<const Index> key_lengths;  // one a sequence: only its first so many keys count; empty: all
  T normalizer_eps = 0;
  T guard = 0;
};
using BidirectionalLinearAttention = BidirectionalLinearAttentionArgs<float>;

void bidirectional_linear_attention(const BidirectionalLinearAttention& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
