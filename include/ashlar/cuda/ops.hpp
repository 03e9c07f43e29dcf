// SPDX-License-Identifier: Apache-2.0
// The ops that run on a device: the same arguments and the same equations, said where the op is declared.
// Arrays are in device memory, lists of integers and offsets in the host's.
#pragma once
#include "ashlar/cuda/cuda_exec.hpp"
#include "ashlar/cuda/device_recurrent_state.hpp"
#include "ashlar/cuda/device_weight.hpp"
#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/embedding.hpp"
#include "ashlar/ops/feature_map.hpp"
#include "ashlar/ops/linear_mixers.hpp"
#include "ashlar/ops/moe.hpp"
#include "ashlar/ops/norm.hpp"
#include "ashlar/ops/residual_add.hpp"
#include "ashlar/ops/rope.hpp"
#include "ashlar/ops/rwkv7_gates.hpp"
#include "ashlar/ops/sampling.hpp"
#include "ashlar/ops/scale_heads.hpp"
#include "ashlar/ops/short_conv.hpp"
#include "ashlar/ops/softmax_attention.hpp"
#include "ashlar/ops/token_shift.hpp"

namespace ashlar {
inline namespace v0 {

void activate(const Activate& args, CudaExec& exec);
void decay_gate(const DecayGate& args, CudaExec& exec);
void embedding(const Embedding& args, CudaExec& exec);
void rms_norm(const RmsNorm& args, CudaExec& exec);
void layer_norm(const LayerNorm& args, CudaExec& exec);
void l2_norm(const L2Norm& args, CudaExec& exec);
void sum_norm(const SumNorm& args, CudaExec& exec);
void residual_add(const ResidualAdd& args, CudaExec& exec);
void rope(const Rope& args, CudaExec& exec);
void short_conv(const ShortConv& args, CudaExec& exec);

// Around recurrences.
void dpfp(const Dpfp& args, CudaExec& exec);
void hedgehog(const Hedgehog& args, CudaExec& exec);
void hgrn(const DeviceGatedScan& args, CudaExec& exec);  // log decays are not looked at
void rwkv7_keys(const Rwkv7Keys& args, CudaExec& exec);
void rwkv7_output(const Rwkv7Output& args, CudaExec& exec);
void rwkv7_values(const Rwkv7Values& args, CudaExec& exec);
void scale_heads(const ScaleHeads& args, CudaExec& exec);
void token_shift(const TokenShift& args, CudaExec& exec);

// moe_route writes its experts, and moe_group its lists, in host memory: a step with them waits for the
// device.
void moe_route(const MoeRoute& args, CudaExec& exec);
void moe_group(const MoeGroup& args, CudaExec& exec);
void moe_gather(const MoeGather& args, CudaExec& exec);
void moe_combine(const MoeCombine& args, CudaExec& exec);

// Queries, keys and values of f32 (in Precision::fast products are of values rounded to bf16), of f32 with
// keys and values of bf16, or all of bf16 or f16 with an output of the same type. Refused here: top_k,
// normalisers other than softmax and softmax plus one, entropy, lists of blocks and of global positions.
// Other than on the CPU, a value that the pattern hides from a query must be a number all the same.
void softmax_attention(const SoftmaxAttention& args, CudaExec& exec);
void softmax_attention(const SoftmaxAttentionArgs<float, bf16>& args, CudaExec& exec);
void softmax_attention(const SoftmaxAttentionArgs<float, bf16, bf16>& args, CudaExec& exec);
void softmax_attention(const SoftmaxAttentionArgs<float, bf16, bf16, bf16>& args, CudaExec& exec);
void softmax_attention(const SoftmaxAttentionArgs<float, f16, f16, f16>& args, CudaExec& exec);
void merge_attention(const MergeAttention& args, CudaExec& exec);

// Log decays are not looked at: none may be positive or NaN. Refused beside what the CPU refuses: requests,
// more than 512 key channels. In Precision::fast, sequences of 16 tokens and more with at most one decay a
// head, the delta rule or no transition and up to 256 key channels go in chunks of 64 rows, whose products
// round to bf16, unless the form is recurrent; everything else goes token by token in f32. How a sequence is
// worked through depends on itself alone.
void linear_recurrence(const DeviceLinearRecurrence& args, CudaExec& exec);
// Its members by their names, see ops/linear_mixers.hpp.
inline void linear_attention(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kLinearAttention, args, exec);
}
inline void retention(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kRetention, args, exec);
}
inline void lightning_attention(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kLightningAttention, args, exec);
}
inline void simple_gla(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kSimpleGla, args, exec);
}
inline void gla(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kGla, args, exec);
}
inline void hgrn2(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kHgrn2, args, exec);
}
inline void mamba2_ssd(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kMamba2Ssd, args, exec);
}
inline void rwkv6(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kRwkv6, args, exec);
}
inline void rwkv7(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kRwkv7, args, exec);
}
inline void delta_rule(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kDeltaRule, args, exec);
}
inline void gated_delta_rule(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kGatedDeltaRule, args, exec);
}
inline void gated_delta_product(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kGatedDeltaProduct, args, exec);
}
inline void kda(const DeviceLinearRecurrence& args, CudaExec& exec) {
  detail::run_member(detail::kKda, args, exec);
}

// As on the CPU but for the probabilities, which are of f32, and their sums, which are of fixed point and
// exact: another token than the CPU's only where the random number falls into that rounding. The ids come to
// the host: a step with it waits for the device.
void sample(const Sample& args, CudaExec& exec);

}  // namespace v0
}  // namespace ashlar
